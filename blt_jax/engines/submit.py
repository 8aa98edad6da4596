"""A study given to a cluster: what is missing of it is submitted, and nothing twice.

Killed at any moment and given again, from any machine that has the folder and the cluster's
clients, a command adds what is not there yet; the study's lease keeps two of them apart.
"""

import sys
import time

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import gke, slurm, tpu_vm
from blt_jax.engines.local import Job
from blt_jax.runs import lease
from blt_jax.runs.lease import Lease
from blt_jax.study import folder as study_folder
from blt_jax.study import grid, status
from launch import plan as launch_plan


def on_slurm(study, folder, resources, dry_run, retry, plan):
    """The preparation, or once there is a plan the runs and the report. Returns the exit code."""
    if storage.in_bucket(folder):
        raise ConfigError(
            f"--engine=slurm: {folder} is in a bucket; Slurm's scripts and logs need a folder"
        )
    if not dry_run and _preparing(folder, slurm.queue):
        return 0
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        jobs = study_folder.planned_jobs(folder)[1] or (assumed(study, folder) if dry_run else None)
        # First without evaluations, which may fail: a report there is in any case.
        after = [
            [sys.executable, "-m", f"launch.{name}", f"--workdir={folder}"]
            for name in ("report", "evaluate")
        ]
        slurm.write(
            folder, resources, given_again(), after if study.noise_bytes else after[:1], jobs
        )
        if dry_run:
            print(
                f"{folder / 'slurm'} holds what would be submitted; the same command without "
                "--dry_run submits it"
            )
            return 0
        if jobs is None:
            if not _preparing(folder, slurm.queue):
                print(
                    f"submitted the preparation as job {slurm.submit(folder, 'prepare')}; it "
                    "submits the runs"
                )
            return 0
        queued = slurm.queue(folder)
        runs = {one.index: one for one in queued if one.part == "runs"}
        missing, failed = left(jobs, runs, retry)
        waited = sorted({one.job for one in runs.values()})
        if missing:
            numbers = slurm.submit_runs(folder, missing, resources.at_once)
            waited += numbers
            print(f"submitted runs {slurm.spans(missing)} as job {', '.join(numbers)}")
        waiting = [
            one.job for one in slurm.queue(folder) if one.part == "report" and not one.running
        ]
        if missing or (waited and not waiting):
            print(f"submitted the report as job {slurm.submit_report(folder, waited)}")
        if not waited:
            return study_folder.finish(
                folder, time.monotonic(), failed, study.noise_bytes, here=False
            )
    return 0


def on_gke(study, folder, resources, dry_run, retry, plan):
    """The preparation, or once there is a plan the runs, or once all have ended the report. Returns
    the exit code.

    Without `prepare_type`, `plan(study, folder)` prepares here and now (False: interrupted), and
    the runs follow.
    """
    resources.check()
    if not dry_run and _preparing(folder, gke.queue):
        return 0
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        gke.write(folder, resources)
        jobs = study_folder.planned_jobs(folder)[1]
        if dry_run or jobs is None:
            prepare = Job(
                gke.PREPARE,
                elsewhere([*given_again(), f"--workdir={folder}", "--stage=prepare"]),
                folder,
            )
            runs = _there(jobs or assumed(study, folder))
        if dry_run:
            for job in [prepare] * bool(resources.prepare_type) + runs:
                gke.submit(folder, resources, job, dry_run=True)
            print(
                f"{folder / 'gke'} holds what would be submitted; the same command without "
                "--dry_run submits it"
            )
            return 0
        if jobs is None:
            # Of a slice that does not exist, or a cluster that does not answer, we hear now and not
            # in an hour.
            for job in [prepare] * bool(resources.prepare_type) + runs[:1]:
                gke.submit(folder, resources, job, dry_run=True)
            there = gke.queue(folder)
            if resources.prepare_type:
                if not _preparing(folder, gke.queue):
                    name = gke.submit(folder, resources, prepare, there)
                    print(f"submitted the preparation as job {name}; then {AGAIN}")
                return 0
            if not plan(study, folder):
                return study_folder.interrupted(folder)
            jobs = study_folder.planned_jobs(folder)[1]
        there = gke.queue(folder)
        queued = {one.index for one in there if one.part == "runs" and not one.ended}
        missing, failed = left(jobs, queued, retry)
        for job in _there(jobs[i] for i in missing):
            print(
                f"submitted {job.name} as job {gke.submit(folder, resources, job, there)}",
                flush=True,
            )
        if not missing and not queued and not any(lease.holder(job.folder) for job in jobs):
            return study_folder.finish(
                folder, time.monotonic(), failed, study.noise_bytes, here=False
            )
        print(f"when the runs have ended, {AGAIN}")
    return 0


AGAIN = "the same command given again goes on from there; --status shows the runs"


def on_tpu_vm(study, folder, resources, dry_run, retry, plan):
    """Scripts for somebody to run. Returns the exit code."""
    resources.check()
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        jobs = study_folder.planned_jobs(folder)[1] or assumed(study, folder)
        prepare = elsewhere(
            [*given_again(), f"--workdir={folder}", "--stage=prepare"], resources.python
        )
        report = elsewhere(
            [sys.executable, "-m", "launch.report", f"--workdir={folder}"], resources.python
        )
        tpu_vm.write(folder, resources, prepare, report, _there(jobs, resources.python))
    print(
        f"{tpu_vm.call(folder, 'all')} runs the study on {resources.name}, NAME.sh beside it one "
        "run"
    )
    return 0


ENGINES = {"slurm": (slurm, on_slurm), "gke": (gke, on_gke), "tpu_vm": (tpu_vm, on_tpu_vm)}


def left(jobs, queued, retry):
    """(indices of the runs to submit, {name: why} of those that failed and stay so); says how many
    are done.

    `queued`: indices of those in the queue. With `retry` failed ones are submitted too.
    """
    missing, failed = [], {}
    for i, one in enumerate(jobs):
        if one.done or i in queued or lease.holder(one.folder):
            continue
        word, message = status.last_words(one.folder / "log.txt")
        if word == "failed" and not retry:
            failed[one.name] = message
            continue
        if word == "failed":
            status.append(one.folder, "queued", "again")
        missing.append(i)
    print(
        f"{sum(one.done for one in jobs)} of {len(jobs)} runs are done, {len(queued)} in the queue",
        flush=True,
    )
    return missing, failed


def assumed(study, folder):
    """Jobs of a study that has no plan yet: their names hold, what the table shows of sizes is
    assumed.
    """
    planned = grid.plan(study, grid.assumed_facts(study))
    launch_plan.show(planned)
    return study_folder.jobs_of(folder, [one.run.name for one in planned])


def given_again():
    """argv of this command, without what holds for once."""
    once = ("--dry_run", "--retry_failed")
    return [
        sys.executable,
        "-m",
        "launch.sweep",
        *(a for a in sys.argv[1:] if a.split("=")[0] not in once),
    ]


def elsewhere(argv, python="python"):
    """argv as it runs on another machine, in a checkout of its own."""
    ours = f"{study_folder.ROOT}/"
    return [
        python,
        *(a.replace(ours, "", 1) if a.startswith(f"--config={ours}") else a for a in argv[1:]),
    ]


def _there(jobs, python="python"):
    return [Job(job.name, elsewhere(job.argv, python), job.folder) for job in jobs]


def _preparing(folder, queue):
    """Whether the preparation is queued or running; says so."""
    if (folder / "plan.json").exists():
        return False
    found = [one for one in queue(folder) if one.part == "prepare" and not one.ended]
    for one in found:
        state = "running" if one.running else f"queued ({one.reason})"
        print(
            f"the preparation is {state}, job {one.job}; the runs come after it; --status shows "
            "them"
        )
    return bool(found)
