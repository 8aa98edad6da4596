"""What lies in a study's folder, each name once; whose folder it is; the job of each run. No jax
here.
"""

import json
import sys
from pathlib import Path
from typing import Any

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import Job
from blt_jax.record import differences, fingerprint, to_dict
from blt_jax.runs import run_files
from blt_jax.runs.config import Run
from blt_jax.storage import write_json
from blt_jax.study.config import Study

STUDY = "study.json"  # the study's config and fingerprint, and once planned each run's command
PLAN = "plan.json"  # written last of the preparation: from here on the plan stands
SAMPLE = "sample.json"  # how the families cut a piece of text
STORE = "store"
RUNS = "runs"
EVALUATIONS = "evaluations"
REPORT = "report"
PAGE = f"{REPORT}/index.html"
ENTROPY_MODEL = "entropy_model"  # a run's folder
COMPILE_CACHE = "compile_cache"
PREPARE_LOG = "prepare.log"  # in the folder of an engine that prepared

CONFIG = "resolved"  # packaged config: a run as the JSON in its folder says


def program(command: str) -> list[str]:
    """argv that runs one of our commands on this machine, from a checkout or from a wheel."""
    return [sys.executable, "-m", "blt_jax", command]


def run_folder(folder: Path, name: str) -> Path:
    """The folder of a run of the study in `folder`."""
    return folder / RUNS / name


def record(study: Study, folder: Path) -> None:
    """Writes study.json. Raises ConfigError where the folder belongs to another study, or to none
    and is not empty.
    """
    path = folder / STUDY
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
    if folder.exists() and any(not p.name.startswith(run_files.LEASE) for p in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no study; choose another --workdir")
    write_json(path, mine)


def command(folder: Path, run: Path) -> list[str]:
    """argv that makes the run in folder `run`; engines only wrap it."""
    return [
        *program("train"),
        f"--config={CONFIG}:{run / run_files.CONFIG}",
        f"--workdir={run}",
        f"--compile_cache={folder / COMPILE_CACHE}",
    ]


def job(folder: Path, into: Path, run: Run, cost: dict[str, Any] | None = None) -> Job:
    """Writes a run's config.json and cost.json in folder `into` and returns its engine job."""
    storage.make_folder(into)
    if not (into / run_files.CONFIG).exists():
        run_files.write(into, run_files.CONFIG, to_dict(run))
    if cost is not None:
        run_files.write(into, run_files.COST, cost)
    return Job(run.name, command(folder, into), into)


def jobs_of(folder: Path, names: list[str]) -> list[Job]:
    """The jobs of runs, by their names."""
    folders = [run_folder(folder, name) for name in names]
    return [Job(run.name, command(folder, run), run) for run in folders]


def plan(folder: Path) -> dict[str, Any] | None:
    """plan.json, or None while there is no plan."""
    path = folder / PLAN
    return json.loads(path.read_text()) if path.exists() else None


def planned_jobs(folder: Path) -> tuple[dict[str, Any] | None, list[Job] | None]:
    """(plan.json, its runs' jobs in order), or (None, None) while there is no plan."""
    planned = plan(folder)
    if planned is None:
        return None, None
    return planned, jobs_of(folder, [run["name"] for run in planned["runs"]])
