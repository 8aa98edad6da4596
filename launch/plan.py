"""Print a study's runs: parameters, FLOPs per byte, bytes, steps, training FLOPs. Needs no device.

    python -m launch.plan --config=experiments/quickstart.py
    python -m launch.plan --config=experiments/quickstart.py --json=plan.json

Before a study has measured its patches and tokens, the plan stands on assumed sizes (marked "assumed").
"""

import json
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from blt_jax.config import Study, build, to_dict
from blt_jax.scaling import grid
from launch import flags as launch_flags


def show(planned):
    """Prints the table of planned runs."""
    rows = grid.table(planned)
    table = Table(
        title=f"{len(rows)} runs" + ("" if planned[0].cost["measured"] else " (assumed patch and token sizes)")
    )
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name == "name" else "right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()))
    Console(width=None if Console().is_terminal else 160).print(table)


def main(_):
    study = build(Study, CONFIG.value.to_dict())
    planned = grid.plan(study, grid.assumed_facts(study))
    show(planned)
    if JSON.value:
        runs = [{"name": one.name, "cost": one.cost, "config": to_dict(one.run)} for one in planned]
        Path(JSON.value).write_text(json.dumps(runs, indent=1))
    return 0


if __name__ == "__main__":
    CONFIG = launch_flags.define_config()
    JSON = flags.DEFINE_string("json", "", "Also write the plan here, as JSON.")
    launch_flags.run(main)
