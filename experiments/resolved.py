"""A run exactly as a run folder or a study recorded it:
`--config=experiments/resolved.py:RUN/config.json`.

    python -m launch.train --config=experiments/resolved.py:runs/quickstart/runs/NAME/config.json \\
        --workdir=runs/quickstart/runs/NAME

This is the command that `study.json` lists for every run; a run started by hand counts like any
other.
"""

import json

from ml_collections import ConfigDict

from blt_jax import storage
from blt_jax.config import ConfigError
from experiments.base import tuples


def get_config(path=""):
    if not path:
        raise ConfigError(
            "--config=experiments/resolved.py needs the path of a config.json after a colon"
        )
    try:
        return ConfigDict(tuples(json.loads(storage.at(path).read_text())))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable config.json ({error})") from None
