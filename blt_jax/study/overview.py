"""A study seen and stopped from outside, whichever engine has it: by its folders, its leases, the
clusters' queues.
"""

import dataclasses
import functools
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import gke, slurm
from blt_jax.engines.queued import told
from blt_jax.runs import lease
from blt_jax.study import status

QUEUES = {"slurm": slurm, "gke": gke}  # engine, also the folder that it makes in a study


def show(folder):
    """One table of all runs: on a pipe once, on a terminal until Ctrl-C. Returns 0.

    Raises ConfigError where there is no study.
    """
    if not (folder / "study.json").exists():
        raise ConfigError(f"{folder} holds no study; the same command without --status begins it")
    status.show(lambda: states(folder))
    return 0


def states(folder):
    """`status.State` of each run of a study, from its folder and, where the study went to a
    cluster, from its queue.

    While there is no plan, of the preparation instead. A queue that cannot be read is one line on
    stderr.
    """
    jobs = None  # where no queue is known
    for name, engine in QUEUES.items():
        if (folder / name).exists():
            try:
                jobs = (jobs or []) + engine.queue(folder)
            except ConfigError as error:
                _say_once(f"without the queue of {name}: {error}")

    def state(read, part, index=-1):
        return (
            read
            if jobs is None
            else told(read, [one for one in jobs if (one.part, one.index) == (part, index)])
        )

    saved = folder / "plan.json"
    runs = (
        [folder / "runs" / run["name"] for run in json.loads(saved.read_text())["runs"]]
        if saved.exists()
        else []
    )
    found = []
    if not saved.exists():
        logs = sorted(folder.glob("*/prepare.log"), key=storage.modified)
        word, message = status.last_words(logs[-1]) if logs else ("", "")
        failed = status.State("prepare", "failed", message=message)
        holder = lease.holder(folder)
        waits = status.State(
            "prepare", "running" if holder else "queued", message=f"by {holder}" if holder else ""
        )
        found.append(state(failed if word == "failed" and not holder else waits, "prepare"))
        if (folder / "entropy_model" / "config.json").exists():
            found.append(status.read(folder / "entropy_model"))
    with ThreadPoolExecutor(16) as pool:  # a bucket answers slowly, but many at a time
        for i, read in enumerate(pool.map(_read, runs)):
            found.append(state(read, "runs", i))
    return found


def _read(run):
    return dataclasses.replace(status.read(run), preempted=status.preempted(run / "log.txt"))


@functools.cache
def _say_once(line):
    print(line, file=sys.stderr)


def cancel(folder):
    """Stops the study wherever it runs; what has begun saves. Returns 0.

    Raises ConfigError where a process on another machine holds the study, or where a cluster does
    not answer.
    """
    jobs, silent = [], None
    for name, engine in QUEUES.items():
        if (folder / name).exists():
            try:
                jobs += engine.cancel(folder)
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
