"""Redraw a study's report from its run folders, or draw the same laws from a table of runs of your
own.

    python -m launch.report --workdir=runs/quickstart
    python -m launch.report --points=points.csv --output=report
    python -m launch.report --points=runs.csv --output=report \\
        --columns='params=Model Size,flops=Training FLOP'

Runs of a study that are not done are named in its report. A table needs the columns flops and bpb
(or loss); with params and data (bytes or tokens) it gets isoFLOP minima and Chinchilla laws too,
with patch (bytes per patch or token) laws of the patch size. A column family tells families apart,
seed the seeds of one size.
"""

from typing import Any

from absl import flags

from blt_jax.config import ConfigError
from launch import flags as launch_flags
from launch.fit import columns

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.")
POINTS = flags.DEFINE_string("points", None, "Table of runs: CSV, or a JSON list of records.")
OUTPUT = flags.DEFINE_string("output", None, "Folder for the report of --points.")
COLUMNS = flags.DEFINE_string(
    "columns", "", "Columns of --points with other names: FIELD=COLUMN, with commas between."
)
CONVENTION = flags.DEFINE_enum(
    "convention", "exact", ["exact", "paper"], "FLOPs of --points, if it is one of ours."
)


def main(_: Any) -> int:
    """Draws the page and prints its path."""
    if (WORKDIR.value is None) == (POINTS.value is None):
        raise ConfigError("give one of --workdir=STUDY and --points=CSV, and not both")
    if WORKDIR.value is not None and (OUTPUT.value is not None or COLUMNS.value):
        raise ConfigError(
            "--output and --columns go with --points; a study's report lies in its own folder"
        )
    if POINTS.value is not None and OUTPUT.value is None:
        raise ConfigError("--points needs --output=DIR, the folder for its report")
    # matplotlib takes longer to import than all else
    if WORKDIR.value is not None:
        from blt_jax.study import report

        path = report.write(WORKDIR.value)
    else:
        from blt_jax.scaling import page

        rename = columns(COLUMNS.value)
        path = page.write_table(
            str(POINTS.value), str(OUTPUT.value), rename=rename, convention=CONVENTION.value
        )
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
