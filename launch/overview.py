"""A study seen and stopped from outside, whichever engine has it: by its folders, its leases and Slurm's queue."""

import dataclasses
import json
import os
import signal
import sys

from blt_jax.config import ConfigError
from blt_jax.train import lease
from launch import status
from launch.engines import slurm


def show(folder):
    """One table of all runs: on a pipe once, on a terminal until Ctrl-C. Returns 0.

    Raises ConfigError where there is no study.
    """
    if not (folder / "study.json").exists():
        raise ConfigError(f"{folder} holds no study; the same command without --status begins it")
    status.show(lambda: states(folder))
    return 0


def states(folder):
    """`status.State` of each run of a study, from its folder and, where the study went there, from Slurm's queue.

    While there is no plan, of the preparation instead. A queue that cannot be read is one line on stderr.
    """
    queued = None
    if (folder / "slurm").exists() and slurm.available():
        try:
            queued = slurm.queue(folder)
        except ConfigError as error:
            print(f"without the queue: {error}", file=sys.stderr)

    def state(read, part, index=-1):
        if queued is None:
            return read
        return slurm.queued(read, [one for one in queued if (one.part, one.index) == (part, index)])

    saved = folder / "plan.json"
    runs = [folder / "runs" / run["name"] for run in json.loads(saved.read_text())["runs"]] if saved.exists() else []
    found = []
    if not saved.exists():
        word, message = status.last_words(folder / "slurm" / "prepare.log")
        failed = status.State("prepare", "failed", message=message)
        holder = lease.holder(folder)
        waits = status.State("prepare", "running" if holder else "queued", message=f"by {holder}" if holder else "")
        found.append(state(failed if word == "failed" and not holder else waits, "prepare"))
        if (folder / "entropy_model" / "config.json").exists():
            found.append(status.read(folder / "entropy_model"))
    for i, run in enumerate(runs):
        read = dataclasses.replace(status.read(run), preempted=status.preempted(run / "log.txt"))
        found.append(state(read, "runs", i))
    return found


def cancel(folder):
    """Stops the study wherever it runs; what has begun saves. Returns 0.

    Raises ConfigError where a process on another machine holds the study, or where Slurm fails.
    """
    jobs = slurm.cancel(folder) if (folder / "slurm").exists() and slurm.available() else []
    if jobs:
        print(f"cancelled {len(jobs)} jobs; those that ran save first; the same study given again goes on from there")
        return 0
    holder = lease.holder(folder)
    if holder is None:
        print("nothing to cancel: no job of this study is queued or running")
    elif holder.local:
        os.kill(holder.pid, signal.SIGTERM)
        print(f"told {holder} to save its runs and stop")
    else:
        raise ConfigError(f"the study is in the hands of {holder}: cancel it there")
    return 0
