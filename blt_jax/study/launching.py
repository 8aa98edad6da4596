"""A study brought to its report: prepared, its missing runs run here or given to a cluster, nothing
twice.

Killed at any moment and started again, from any machine that has the folder and the cluster's
clients, each function adds what is not there yet; the study's lease keeps two of them apart. Lines
for a person go to `say`.
"""

import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from blt_jax.engines import Engine, Job, Work
from blt_jax.engines.local import Local
from blt_jax.runs import lease, log_marks
from blt_jax.runs.lease import Lease
from blt_jax.runs.preemption import SAVED_EXIT_CODE
from blt_jax.study import folder as study_folder
from blt_jax.study import grid, status
from blt_jax.study.config import Study
from blt_jax.study.grid import PlannedRun

INTERRUPTED = 130
AGAIN = "the same command given again goes on from there; --status shows the runs"

Plan = Callable[[Study, Path], bool]  # makes the plan of a study in a folder; False: interrupted
Evaluate = Callable[[Path], object]  # makes the evaluations that the study in a folder lacks


def say_line(line: str) -> None:
    """Prints a line at once, also on a pipe."""
    print(line, flush=True)


# ---------------------------------------------------------------- on this machine


def execute(
    jobs: Sequence[Job],
    workers: int,
    flops: Mapping[str, float] | None = None,
    engine: Engine | None = None,
) -> tuple[dict[str, str], bool]:
    """Runs jobs on this machine, `workers` at a time, and shows them.

    Args:
      jobs: those that are done already are not run again.
      workers: jobs at a time.
      flops: planned training FLOPs of a job by its name, for the share that is done.
      engine: of kind "here"; None: `Local`.

    Returns:
      ({name: why} of jobs that failed, whether we were told to stop).
    """
    with status.Watch({job.folder: (flops or {}).get(job.name, 1.0) for job in jobs}) as watch:
        result = (engine or Local()).run(jobs, workers, watch.update)
    failed = {o.job.name: o.message for o in result.outcomes if o.state == "failed"}
    return failed, result.interrupted


def prepare(study: Study, folder: Path, plan: Plan) -> int:
    """Everything up to the plan. Returns the exit code: 42 where it is to be called again."""
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        return 0 if plan(study, folder) else SAVED_EXIT_CODE


def run_here(
    study: Study,
    folder: Path,
    engine: Engine,
    plan: Plan,
    workers: int,
    evaluate: Evaluate,
    say: Callable[[str], None] = say_line,
) -> int:
    """The whole study, by an engine of kind "here". Returns the exit code."""
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        began = time.monotonic()
        if not plan(study, folder):
            return interrupted(folder, say)
        planned, jobs = study_folder.planned_jobs(folder)
        assert planned is not None and jobs is not None
        done = sum(job.done for job in jobs)
        say(f"{done} of {len(jobs)} runs are done")
        failed: dict[str, str] = {}
        if done < len(jobs):
            flops = {run["name"]: run["cost"]["train_flops"]["exact"] for run in planned["runs"]}
            failed, stopped = execute(jobs, workers, flops, engine)
            if stopped:
                return interrupted(folder, say)
        return finish(folder, began, failed, study.noise_bytes, evaluate, say)


# ---------------------------------------------------------------- on a cluster


def give(
    study: Study,
    folder: Path,
    name: str,
    engine: Engine,
    plan: Plan,
    arguments: Sequence[str],
    show: Callable[[list[PlannedRun]], None] = lambda planned: None,
    dry_run: bool = False,
    retry_failed: bool = False,
    say: Callable[[str], None] = say_line,
) -> int:
    """The preparation, or once there is a plan the missing runs, or once all have ended the report.

    Args:
      study: what is in `folder`, or will be.
      folder: absolute.
      name, engine: of kind "cluster" or "scripts".
      plan: makes the plan, where this machine prepares.
      arguments: of `sweep`, that give the same study to the same engine again.
      show: shows runs whose sizes are assumed, as there is no plan yet.
      dry_run: only writes what would be submitted.
      retry_failed: submits failed runs too.
      say: takes lines for a person.

    Returns:
      The exit code. Raises ConfigError where the cluster fails, or cannot have the study.
    """
    engine.check(folder)
    if not dry_run and _preparing(folder, engine, say):
        return 0
    with Lease(folder, what="study"):
        study_folder.record(study, folder)
        work = _work(study, folder, name, arguments, show)
        written = engine.write(work, dry_run)
        if engine.kind == "scripts" or dry_run:
            submits = "; the same command without --dry_run submits it"
            say(written + ("" if engine.kind == "scripts" else submits))
            return 0
        if not work.planned:
            if _preparing(folder, engine, say):
                return 0
            if engine.prepares:
                then = "it submits the runs" if engine.goes_on else f"then {AGAIN}"
                queued = engine.queue(folder, [])
                for what, number in engine.submit(work, [work.prepare], queued):
                    say(f"submitted {what} as job {number}; {then}")
                return 0
            if not plan(study, folder):
                return interrupted(folder, say)
            work = _work(study, folder, name, arguments, show)
            engine.write(work)
        queued = engine.queue(folder, [job.name for job in work.runs])
        live = {job.index for job in queued if job.part == "runs" and not job.ended}
        missing, failed = left(work.runs, live, retry_failed, say)
        for what, number in engine.submit(work, missing, queued):
            say(f"submitted {what} as job {number}")
        if not missing and not live and not any(lease.holder(job.folder) for job in work.runs):
            return finish(folder, time.monotonic(), failed, study.noise_bytes, None, say)
        if not engine.goes_on:
            say(f"when the runs have ended, {AGAIN}")
    return 0


def _work(
    study: Study,
    folder: Path,
    name: str,
    arguments: Sequence[str],
    show: Callable[[list[PlannedRun]], None],
) -> Work:
    """The study as its engine gets it. Without a plan, names of runs hold; their sizes, which are
    shown, are assumed.
    """
    jobs = study_folder.planned_jobs(folder)[1]
    planned = jobs is not None
    if jobs is None:
        assumed = grid.plan(study, grid.assumed_facts(study))
        show(assumed)
        jobs = study_folder.jobs_of(folder, [planned_run.run.name for planned_run in assumed])
    again = [*study_folder.program("sweep"), *arguments, f"--workdir={folder}"]
    log = f"{name}/{study_folder.PREPARE_LOG}"
    first = Job("prepare", [*again, "--stage=prepare"], folder, study_folder.PLAN, log)
    # First without evaluations, which may fail: a report there is in any case.
    last = [
        Job(
            command,
            [*study_folder.program(command), f"--workdir={folder}"],
            folder,
            study_folder.PAGE,
            f"{name}/report.log",
        )
        for command in ("report", "evaluate")[: 2 if study.noise_bytes else 1]
    ]
    return Work(folder, first, jobs, last, again, planned)


def left(
    jobs: Sequence[Job],
    queued: Collection[int],
    retry_failed: bool,
    say: Callable[[str], None] = say_line,
) -> tuple[list[Job], dict[str, str]]:
    """(the runs to submit, {name: why} of those that failed and stay so); says how many are done.

    `queued`: indices of those in the queue. With `retry_failed` failed ones are submitted too.
    """
    missing, failed = [], {}
    for i, job in enumerate(jobs):
        if job.done or i in queued or lease.holder(job.folder):
            continue
        event, message = log_marks.last(job.log)
        if event == "failed" and not retry_failed:
            failed[job.name] = message
            continue
        if event == "failed":
            log_marks.append(job.folder, "queued", "again")
        missing.append(job)
    done = sum(job.done for job in jobs)
    say(f"{done} of {len(jobs)} runs are done, {len(queued)} in the queue")
    return missing, failed


def _preparing(folder: Path, engine: Engine, say: Callable[[str], None]) -> bool:
    """Whether the preparation is queued or running; says so."""
    if (folder / study_folder.PLAN).exists():
        return False
    jobs = [job for job in engine.queue(folder, []) if job.part == "prepare" and not job.ended]
    for job in jobs:
        state = "running" if job.running else f"queued ({job.reason})"
        say(
            f"the preparation is {state}, job {job.job}; the runs come after it; --status shows "
            "them"
        )
    return bool(jobs)


# ---------------------------------------------------------------- the end


def finish(
    folder: Path,
    began: float,
    failed: Mapping[str, str],
    noise_bytes: int,
    evaluate: Evaluate | None,
    say: Callable[[str], None] = say_line,
) -> int:
    """The report, and why runs (name: why) have no result. Returns the exit code.

    With `noise_bytes`, the evaluation of each family's best run comes first, where it is not there
    yet; without `evaluate` it is only said how to make it. `began`: by `time.monotonic`.
    """
    # Plots, not needed before.
    from blt_jax.study import evaluation_results, report, results

    missing: dict[str, Any] = {}
    if noise_bytes:
        points = results.load(folder)[1]
        missing = evaluation_results.missing(folder, points, noise_bytes)
    if missing and evaluate:
        evaluate(folder)
    page = report.write(folder)
    if missing and not evaluate:
        words = ["python", *study_folder.program("evaluate")[1:], f"--workdir={folder}"]
        say(
            f"not evaluated under noise yet: {', '.join(missing)}; where their models fit, "
            f"{shlex.join(words)} adds it"
        )
    for name in failed:
        print(f"failed: {name}: {failed[name]}", file=sys.stderr)
    say(f"report: {page}  ({time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


def interrupted(folder: Path, say: Callable[[str], None] = say_line) -> int:
    """Says how to go on; returns the exit code."""
    say(f"interrupted; every run saved its state: the same command goes on from there ({folder})")
    return INTERRUPTED
