"""Run a study: prepare, plan, train what has no result yet, report.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --dry_run
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --status

On a Slurm cluster, from any machine that has sbatch and the folder; with --dry_run it only writes
STUDY/slurm:

    python -m launch.sweep --config=... --workdir=/shared/STUDY --engine=slurm \\
        --slurm.partition=gpu --slurm.gpus=8

--slurm. takes partition account time nodes gpus cpus constraint at_once extra
(blt_jax/engines/slurm.py). Given again, the command submits what is neither done nor failed nor in
the queue; --retry_failed takes the failed ones too (on this machine they are always tried again).
TPU slices on GKE, by xpk, likewise; and scripts for one TPU VM:

    python -m launch.sweep --config=... --workdir=gs://BUCKET/STUDY --engine=gke --gke.cluster=C \\
        --gke.project=P \\
        --gke.zone=Z --gke.tpu_type=v5p-64 --gke.image=REGISTRY/blt_jax:tpu  (blt_jax/engines/gke.py)
    python -m launch.sweep --config=... --workdir=gs://BUCKET/STUDY --engine=tpu_vm \\
        --tpu_vm.name=N --tpu_vm.zone=Z

Ctrl-C saves the runs in progress; the same command goes on from there and repeats nothing. Exit
code 0: every run is done; 1: some run failed (the report says which); 2: a setting or input is
wrong; 130: interrupted.
"""

import dataclasses
import os
import time
from pathlib import Path

from absl import flags

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import local, submit
from blt_jax.record import build
from blt_jax.runs import preemption
from blt_jax.runs.config import Run
from blt_jax.runs.lease import Lease
from blt_jax.study import grid, overview, planning, status
from blt_jax.study.config import Study
from blt_jax.study.folder import finish, interrupted, job, planned_jobs, record
from launch import flags as launch_flags
from launch import plan as launch_plan
from launch import progress_bar

CONFIG = launch_flags.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)
ENGINE = flags.DEFINE_enum("engine", "local", ["local", *submit.ENGINES], "Where the runs go.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes at a time; 0: one per core, at most 8.")
DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Print the plan, from assumed patch and token sizes, and stop."
)
STAGE = flags.DEFINE_enum("stage", "all", ["all", "prepare"], "prepare: stop when there is a plan.")
STATUS = flags.DEFINE_boolean(
    "status", False, "Show the runs (on a terminal until Ctrl-C) and stop."
)
RETRY = flags.DEFINE_boolean("retry_failed", False, "Submit failed runs again too.")
CANCEL = flags.DEFINE_boolean(
    "cancel", False, "Have the runs in progress save, take back the others, and stop."
)
for _engine, (_module, _) in submit.ENGINES.items():
    for _field in dataclasses.fields(_module.Resources):
        _define = {str: flags.DEFINE_string, int: flags.DEFINE_integer}[_field.type]
        _define(f"{_engine}.{_field.name}", _field.default, f"Of the jobs of --engine={_engine}.")


def execute(jobs, workers, flops=None):
    """Runs jobs on the engine; returns (names and reasons of failed runs, whether we were
    interrupted).
    """
    with status.Watch({one.folder: (flops or {}).get(one.name, 1.0) for one in jobs}) as watch:
        result = local.run(jobs, workers, watch=watch.update)
    failed = {o.job.name: o.message for o in result.outcomes if o.state == "failed"}
    return failed, result.interrupted


def plan(study: Study, folder: Path) -> bool:
    """Everything up to plan.json, unless it is there; prints the plan. False: interrupted."""
    if (folder / "plan.json").exists():
        return True

    def train_entropy_model(run: Run, run_folder: Path) -> bool:
        failed, stopped = execute([job(folder, run_folder, run)], 1)
        if failed:
            raise ConfigError(
                f"the entropy model failed: {failed[run.name]} (see {run_folder / 'log.txt'})"
            )
        return not stopped

    with progress_bar.Printed() as progress:
        planned = planning.plan_study(study, folder, train_entropy_model, progress)
    if planned is None:
        return False
    launch_plan.show(planned)
    launch_plan.show_sources(planned)
    return True


def main(_):
    study = build(Study, CONFIG.value.to_dict())
    folder = storage.absolute(WORKDIR.value)
    asked = {name: resources(name, module) for name, (module, _) in submit.ENGINES.items()}
    alone = STAGE.value == "prepare"
    if STATUS.value:
        return overview.show(folder)
    if CANCEL.value:
        return overview.cancel(folder)
    if ENGINE.value != "local" and not alone:
        give = submit.ENGINES[ENGINE.value][1]
        return give(study, folder, asked[ENGINE.value], DRY_RUN.value, RETRY.value, plan)
    if DRY_RUN.value:
        launch_plan.show(grid.plan(study, grid.assumed_facts(study)))
        return 0
    if alone:
        preemption.leave_when_told()  # the stages up to the entropy model repeat little

    with Lease(folder, what="study"):
        record(study, folder)
        began = time.monotonic()
        if not plan(study, folder):
            return preemption.SAVED_EXIT_CODE if alone else interrupted(folder)
        if alone:
            return 0
        planned, jobs = planned_jobs(folder)
        done = sum(one.done for one in jobs)
        print(f"{done} of {len(jobs)} runs are done", flush=True)
        failed = {}
        if done < len(jobs):
            flops = {run["name"]: run["cost"]["train_flops"]["exact"] for run in planned["runs"]}
            workers = WORKERS.value or min(8, os.cpu_count() or 1)
            failed, stopped = execute(jobs, workers, flops)
            if stopped:
                return interrupted(folder)
        return finish(folder, began, failed, study.noise_bytes)


def resources(engine, module):
    """What the flags `--ENGINE.NAME` ask for. Raises ConfigError."""
    names = [field.name for field in dataclasses.fields(module.Resources)]
    return module.Resources(**{name: flags.FLAGS[f"{engine}.{name}"].value for name in names})


if __name__ == "__main__":
    launch_flags.run(main)
