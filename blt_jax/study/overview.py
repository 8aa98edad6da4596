"""A study seen and stopped from outside, whichever engine has it: by its folders, its leases, the
clusters' queues.
"""

import dataclasses
import functools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blt_jax import engines, storage
from blt_jax.config import ConfigError
from blt_jax.engines import Engine, Queued
from blt_jax.runs import lease, log_marks, run_files, run_state
from blt_jax.runs.run_state import State
from blt_jax.study import folder as study_folder
from blt_jax.study import status


def show(folder: Path) -> int:
    """One table of all runs: on a pipe once, on a terminal until Ctrl-C. Returns 0.

    Raises ConfigError where there is no study.
    """
    if not (folder / study_folder.STUDY).exists():
        raise ConfigError(f"{folder} holds no study; the same command without --status begins it")
    status.show(lambda: states(folder))
    return 0


def states(folder: Path) -> list[State]:
    """The `State` of each run of a study, from its folder and, where the study went to a cluster,
    from its queue.

    While there is no plan, of the preparation instead. A queue that cannot be read is one line on
    stderr.
    """
    plan = study_folder.plan(folder)
    names = [run["name"] for run in plan["runs"]] if plan else []
    jobs: list[Queued] | None = None  # where no queue is known
    for name, engine in _clusters(folder):
        try:
            jobs = (jobs or []) + engine.queue(folder, names)
        except ConfigError as error:
            _say_once(f"without the queue of {name}: {error}")

    def with_queue(state: State, part: str, index: int = -1) -> State:
        if jobs is None:
            return state
        return queued_state(state, [job for job in jobs if (job.part, job.index) == (part, index)])

    if plan is None:
        stages = [with_queue(_preparation(folder), "prepare")]
        entropy_model = folder / study_folder.ENTROPY_MODEL
        if (entropy_model / run_files.CONFIG).exists():
            stages.append(run_state.read(entropy_model))
        return stages
    runs = [study_folder.run_folder(folder, name) for name in names]
    with ThreadPoolExecutor(16) as pool:  # a bucket answers slowly, but many at a time
        read = list(pool.map(_read, runs))
    return [with_queue(state, "runs", i) for i, state in enumerate(read)]


def queued_state(state: State, jobs: Sequence[Queued]) -> State:
    """A run's state, read from its folder, with what a queue says of it: `jobs`, those of the
    run.
    """
    if state.state == "done":
        return state
    live = [job for job in jobs if not job.ended]
    if not live:
        ended = f"job {jobs[-1].job} ended: {jobs[-1].reason}" if jobs else ""
        why = "not submitted" + (f"; {ended}" if ended else "")
        return dataclasses.replace(state, message=why) if state.state == "queued" else state
    job = live[-1]
    if job.running:
        return dataclasses.replace(state, state="running", message=f"job {job.job}")
    return dataclasses.replace(state, state="queued", message=f"job {job.job}: {job.reason}")


def _clusters(folder: Path) -> Iterator[tuple[str, type[Engine]]]:
    """The engines whose clusters a study was given to: each made a folder in the study."""
    for name in engines.ENGINES:
        engine = engines.named(name)
        if engine.kind == "cluster" and (folder / name).exists():
            yield name, engine


def _preparation(folder: Path) -> State:
    """The state of all that comes before the runs."""
    logs = sorted(folder.glob(f"*/{study_folder.PREPARE_LOG}"), key=storage.modified)
    event, message = log_marks.last(logs[-1]) if logs else ("", "")
    holder = lease.holder(folder)
    if holder:
        return State("prepare", "running", message=f"by {holder}")
    if event == "failed":
        return State("prepare", "failed", message=message)
    return State("prepare", "queued")


def _read(run: Path) -> State:
    preempted = log_marks.preemptions(run / run_files.LOG)
    return dataclasses.replace(run_state.read(run), preempted=preempted)


@functools.cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def cancel(folder: Path) -> int:
    """Stops the study wherever it runs; what has begun saves. Returns 0.

    Raises ConfigError where a process on another machine holds the study, or where a cluster does
    not answer.
    """
    plan = study_folder.plan(folder)
    names = [run["name"] for run in plan["runs"]] if plan else []
    jobs: list[Queued] = []
    silent = None
    for _, engine in _clusters(folder):
        try:
            jobs += engine.cancel(folder, names)
        except ConfigError as error:  # perhaps the study never went there
            silent = error
    if jobs:
        print(
            f"cancelled {len(jobs)} jobs; those that ran save first; the same study given again "
            "goes on from there"
        )
        return 0
    holder = lease.holder(folder)
    if holder is None:
        if silent:
            raise silent
        print("nothing to cancel: no job of this study is queued or running")
    elif holder.local:
        os.kill(holder.pid, signal.SIGTERM)
        print(f"told {holder} to save its runs and stop")
    else:
        raise ConfigError(f"the study is in the hands of {holder}: cancel it there")
    return 0
