"""Rebuild a study's report from its run folders; runs that are not done are named in it.

python -m launch.report --workdir=runs/quickstart
"""

from absl import flags

from blt_jax.scaling import report
from launch import flags as launch_flags

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)


def main(_):
    print(f"report: {report.write(WORKDIR.value)}")
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
