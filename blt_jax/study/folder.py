"""What the commands know of a study's folder: whose it is, the job of each run, its plan, its
report. No jax here.
"""

import json
import shlex
import sys
import time
from pathlib import Path

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import local
from blt_jax.record import differences, fingerprint, to_dict
from blt_jax.storage import write_json
from blt_jax.study.config import Study

ROOT = Path(__file__).parents[2]
RESOLVED = ROOT / "experiments" / "resolved.py"
INTERRUPTED = 130


def record(study: Study, folder):
    """Writes study.json, or checks that the folder belongs to this study."""
    path = folder / "study.json"
    mine = {"study": to_dict(study), "fingerprint": fingerprint(study)}
    if path.exists():
        theirs = json.loads(path.read_text())
        if theirs["fingerprint"] != mine["fingerprint"]:
            changed = differences(theirs["study"], mine["study"])
            more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
            raise ConfigError(
                f"{folder} holds another study ({'; '.join(changed[:2])}{more}); choose another "
                "--workdir"
            )
        return
    if folder.exists() and any(not p.name.startswith("lease.json") for p in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no study; choose another --workdir")
    write_json(path, mine)


def command(folder, run_folder):
    """What a person could paste to make this run; engines only wrap it."""
    return [
        sys.executable,
        "-m",
        "launch.train",
        f"--config={RESOLVED}:{run_folder / 'config.json'}",
        f"--workdir={run_folder}",
        f"--compile_cache={folder / 'compile_cache'}",
    ]


def job(folder, run_folder, run, cost=None):
    """Writes a run's config.json and cost.json and returns its engine job."""
    storage.make_folder(run_folder)
    if not (run_folder / "config.json").exists():
        write_json(run_folder / "config.json", to_dict(run))
    if cost is not None:
        write_json(run_folder / "cost.json", cost)
    return local.Job(run.name, command(folder, run_folder), run_folder)


def planned_jobs(folder):
    """(plan.json, its runs' jobs in order), or (None, None) while there is no plan."""
    saved = folder / "plan.json"
    if not saved.exists():
        return None, None
    read = json.loads(saved.read_text())
    return read, jobs_of(folder, [run["name"] for run in read["runs"]])


def jobs_of(folder, names):
    return [
        local.Job(name, command(folder, folder / "runs" / name), folder / "runs" / name)
        for name in names
    ]


def finish(folder, began, failed, noise_bytes, here=True):
    """The report, and the word of those runs (name: why) that have no result. Returns the exit
    code.

    With `noise_bytes`, the evaluation of each family's best run comes first, where it is not there
    yet; or, if not to be made `here`, is told how to make.
    """
    from blt_jax.study import (
        evaluation_results,
        report,  # plots: not needed before
        results,
    )

    missing = noise_bytes and evaluation_results.missing(
        folder, results.load(folder)[1], noise_bytes
    )
    if missing and here:
        from blt_jax.study import evaluate  # imports jax

        evaluate.of_study(folder)
    page = report.write(folder)
    if missing and not here:
        command = f"python -m launch.evaluate --workdir={shlex.quote(str(folder))}"
        print(
            f"not evaluated under noise yet: {', '.join(missing)}; where their models fit, "
            f"{command} adds it"
        )
    for name in failed:
        print(f"failed: {name}: {failed[name]}", file=sys.stderr)
    print(f"report: {page}  ({time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


def interrupted(folder):
    print(f"interrupted; every run saved its state: the same command goes on from there ({folder})")
    return INTERRUPTED
