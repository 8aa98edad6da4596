"""Fit a scaling law to a table of runs, with 90% bootstrap intervals, lack of fit and a held-out
largest budget.

    python -m launch.fit --points=runs/quickstart/report/points.csv --law=frontier --json=fit.json
    python -m launch.fit --points=points.csv --law=patch --budget=1e22 --inference=2e9 \\
        --plot=patch.svg
    python -m launch.fit --points=chinchilla.csv --law=chinchilla --drop_highest=5 \\
        --columns='params=Model Size,flops=Training FLOP'

A points.csv of ours has all columns. `data` may be left out where flops = 6 params data; a column
`family` tells families apart. Files are CSV, or a JSON list of records. Runs that differ only in
seed count as one run with several seeds.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from rich import table as rich_table
from rich.console import Console

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, laws, points
from blt_jax.scaling.tables import Table
from launch import flags as launch_flags

PICTURES = (".svg", ".png", ".pdf")


def columns(text: str) -> dict[str, str]:
    """{field: column} of `field=Column name,field=...`. Raises ConfigError."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(sign for _, sign, _ in pairs):
        raise ConfigError(f"--columns={text!r}: must be FIELD=COLUMN, with commas between")
    return {field.strip(): column.strip() for field, _, column in pairs}


def chosen(table: points.Points, families: list[str]) -> points.Points:
    """Points of the named families, all without names. Raises ConfigError for a name that is not
    there.
    """
    if not families:
        return table
    for name in families:
        if name not in table.families():
            raise ConfigError(f"--families={name}: {table.path} has {', '.join(table.families())}")
    return table.where([family in families for family in table.family])


def drawn(item: Table | str) -> rich_table.Table | str:
    """A law's table as the terminal draws it; a sentence stays one."""
    if isinstance(item, str):
        return item
    table = rich_table.Table(title=item.title, title_justify="left")
    for name in item.header:
        table.add_column(name)
    for row in item.rows:
        table.add_row(*map(str, row))
    return table


def check_outputs(json_path: str, plot_path: str) -> None:
    """Before minutes are spent: raises ConfigError for a picture of unknown kind or a folder that
    is not there.
    """
    for flag, path in (("json", json_path), ("plot", plot_path)):
        if path and not Path(path).absolute().parent.is_dir():
            raise ConfigError(f"--{flag}={path}: there is no folder {str(Path(path).parent)!r}")
    if plot_path and Path(plot_path).suffix not in PICTURES:
        raise ConfigError(f"--plot={plot_path}: must end in {', '.join(PICTURES[:-1])} or .pdf")


def main(_: Any) -> int:
    """Loads the table, fits, prints; writes what --json and --plot ask for."""
    check_outputs(JSON.value, PLOT.value)
    law, values = laws.law(LAW.value), {name: flag.value for name, flag in OPTIONS.items()}
    options = laws.Options(BOOTSTRAP.value, SEED.value, values=values)
    needed = law.needed(options)
    table = points.load(
        POINTS.value,
        needed,
        rename=columns(COLUMNS.value),
        convention=CONVENTION.value,
        entropy_model=ENTROPY_MODEL.value,
    )
    table = chosen(table, FAMILIES.value)
    table = table.without_highest(DROP_HIGHEST.value, "loss" if "loss" in needed else "bpb")
    result = laws.fit(LAW.value, table, options)
    view = laws.View.of(table, options)
    notes = [f"{POINTS.value}: {len(table)} rows", *table.notes]
    notes.append(
        f"{bootstrap.LEVEL:.0%} intervals of {options.draws} bootstrap draws over runs and seeds, "
        f"seed {options.seed}"
    )
    console = Console(width=None if Console().is_terminal else 160)
    shown = map(drawn, law.show(result, view))
    console.print(*shown, "; ".join(notes), sep="\n", highlight=False, markup=False)
    if PLOT.value:
        law.figure(result, view).savefig(PLOT.value)
    if JSON.value:
        facts = {"law": LAW.value, "points": POINTS.value, "rows": len(table)}
        facts |= {"notes": list(table.notes), "convention": CONVENTION.value}
        facts |= {"bootstrap": options.bootstrap, "fits": law_fit.as_json(result)}
        Path(JSON.value).write_text(json.dumps(facts, indent=1, allow_nan=False))
    return 0


if __name__ == "__main__":
    __doc__ = f"{__doc__}\n{laws.overview()}\n"
    POINTS = flags.DEFINE_string(
        "points", None, "Table of runs: CSV, or a JSON list of records.", required=True
    )
    LAW = flags.DEFINE_enum("law", None, list(laws.LAWS), "Which law.", required=True)
    JSON = flags.DEFINE_string("json", "", "Also write the fit here, as JSON.")
    PLOT = flags.DEFINE_string("plot", "", "Also draw the fit here: .svg, .png or .pdf.")
    COLUMNS = flags.DEFINE_string(
        "columns", "", "Columns with other names: FIELD=COLUMN, with commas between."
    )
    FAMILIES = flags.DEFINE_list("families", [], "Only these families.")
    DROP_HIGHEST = flags.DEFINE_integer(
        "drop_highest", 0, "Leave out this many rows of highest loss.", lower_bound=0
    )
    CONVENTION = flags.DEFINE_enum(
        "convention", "exact", ["exact", "paper"], "FLOPs of a points.csv of ours."
    )
    ENTROPY_MODEL = flags.DEFINE_bool(
        "entropy_model", False, "Add the entropy model's FLOPs, from a points.csv of ours."
    )
    OPTIONS = {
        name: flags.DEFINE_float(name, None, words, lower_bound=1e-9)
        for name, words in laws.options().items()
    }
    BOOTSTRAP = flags.DEFINE_integer(
        "bootstrap", 1000, "Bootstrap draws; 0 for no intervals.", lower_bound=0
    )
    SEED = flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.")
    launch_flags.run(main)
