"""Speeds as ratios of things measured side by side in one run, on this machine.

    python -m launch.bench --suite=train_step --json=train_step.json
    python -m launch.bench --suite=parity_of_hardware,patching,data

Suites: `train_step` (forward and backward against transformers' `blt`, on the same weights; needs
`pip install -e '.[peer]'`), `parity_of_hardware` (achieved FLOP/s of a BLT against a token LM of
the same executed FLOPs per byte), `patching` (entropies to row index), `data` (batches against what
a training step eats), `packing` (how full the rows of a study's own store are:
`--store=STUDY/store`), `entropy` (entropies of a corpus against the bare forward of the entropy
model), `generate` (bytes/s and FLOPs of generation, against transformers' `blt` where it is
installed and a token LM; `--rows=1,8` at a time). Each module of `launch/bench` says what it
measures and how. `--quick` takes sizes that end in a minute or two.
"""

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
from absl import flags
from rich.console import Console
from rich.table import Table

from blt_jax.config import ConfigError
from launch import flags as launch_flags

SUITES = {  # name: its module
    "train_step": "train_step",
    "parity_of_hardware": "parity_of_hardware",
    "patching": "patch_rules",
    "data": "loading",
    "packing": "packing",
    "entropy": "entropies",
    "generate": "decoding",
}


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a list of dicts with the same keys as a table."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(
            name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right"
        )
    for row in rows:
        table.add_row(
            *(
                f"{v:,.4g}" if isinstance(v, float) else "-" if v is None else str(v)
                for v in row.values()
            )
        )
    Console(width=None if Console().is_terminal else 160).print(table)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def main(_: list[str]) -> int:
    for name in SUITE.value:
        if name not in SUITES:
            raise ConfigError(f"--suite={name}: known are {', '.join(SUITES)}")
    if not all(n.isdigit() and int(n) for n in ROWS.value) or not ROWS.value:
        raise ConfigError(f"--rows={','.join(ROWS.value)}: must be counts of rows, as in 1,8")
    figures: dict[str, Any] = {"machine": machine()}
    options: dict[str, dict[str, Any]] = {
        "packing": {"store": STORE.value},
        "generate": {"rows": [int(count) for count in ROWS.value]},
    }
    for name in SUITE.value:
        suite = import_module(f"launch.bench.{SUITES[name]}")
        figures[name] = suite.measure(quick=QUICK.value, **options.get(name, {}))
        for title, rows in figures[name]["tables"].items():
            show(f"{name}: {title}", rows)
        if JSON.value:  # after each suite: a long one that is stopped loses only itself
            temporary = Path(JSON.value).with_suffix(".tmp")
            temporary.write_text(json.dumps(figures, indent=1))
            temporary.replace(JSON.value)
    return 0


if __name__ == "__main__":
    SUITE = flags.DEFINE_list("suite", ["patching", "data"], "Comma-separated suites.")
    JSON = flags.DEFINE_string("json", "", "Also write the figures here.")
    STORE = flags.DEFINE_string("store", "", "Store with entropies that suite `packing` reads.")
    ROWS = flags.DEFINE_list(
        "rows", ["1", "8"], "Rows at a time of suite `generate`, each measured by itself."
    )
    QUICK = flags.DEFINE_boolean("quick", False, "Small sizes.")
    launch_flags.run(main)
