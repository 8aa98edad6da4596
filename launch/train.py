"""Train one run: the program of every job.

    python -m launch.train --config=experiments/resolved.py:STUDY/runs/NAME/config.json \\
        --workdir=STUDY/runs/NAME

Continues from the newest checkpoint in --workdir. Writes config.json, metrics.jsonl, tensorboard/,
checkpoints/, validation.json and, last, result.json. Exit code 0: finished; 42: told to stop,
saved, run me again; 75: another process of this run is gone, run me again; 1: diverged or failed;
2: a setting or input is wrong.

Several processes train one run together where the cluster says so (srun, TPU pods, Open MPI), or by
hand, on a shared --workdir, the same line for each PROCESS from 0:

    python -m launch.train --config=... --workdir=... --coordinator=HOST:PORT --processes=2 \\
        --process=PROCESS
"""

from blt_jax.runs import preemption

if __name__ == "__main__":
    preemption.leave_when_told()

import contextlib
import logging
import os
import sys
import traceback

import jax
from absl import flags

from blt_jax import storage
from blt_jax.parallel import processes
from blt_jax.record import build
from blt_jax.runs import run_files
from blt_jax.runs.config import Run
from blt_jax.runs.lease import Lease
from blt_jax.runs.supervise import supervised
from blt_jax.train.loop import Diverged, train
from launch import flags as launch_flags

CONFIG = launch_flags.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
CACHE = flags.DEFINE_string(
    "compile_cache", "", "Folder that keeps compiled programs for later runs."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "HOST:PORT of process 0, where no cluster tells it."
)
PROCESSES = flags.DEFINE_integer(
    "processes", 0, "Processes of this run; 0: what the cluster says, else one."
)
PROCESS = flags.DEFINE_integer("process", 0, "Number of this process, from 0.")
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat", processes.HEARTBEAT, "Seconds after which a silent process is lost."
)

# Set where a process is started as one of several.
CLUSTERS = (
    "SLURM_STEP_NODELIST",
    "TPU_WORKER_HOSTNAMES",
    "TPU_PROCESS_ADDRESSES",
    "OMPI_MCA_orte_hnp_uri",
    "TPU_ML_PLATFORM",  # by jax itself where it finds the chips of a TPU VM
)
BROKEN = ("Gloo", "Connection", "UNAVAILABLE", "DEADLINE_EXCEEDED")


def main(_: list[str]) -> int:
    run = build(Run, CONFIG.value.to_dict())
    folder = storage.at(WORKDIR.value)
    if run_files.done(folder):
        print(f"{run.name}: done already ({folder / run_files.RESULT})")
        return 0
    if CACHE.value:
        jax.config.update("jax_compilation_cache_dir", str(storage.absolute(CACHE.value)))
        # Of the hundreds of small programs, each would cost a bucket more time than it saves.
        seconds = 1.0 if storage.in_bucket(CACHE.value) else 0.0
        jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every save at INFO
    if PROCESSES.value == 1 or not (
        PROCESSES.value or any(name in os.environ for name in CLUSTERS)
    ):
        processes.join(count=1)
        return _train(run, folder)
    lost = (
        f"{run.name}: another process of this run is gone; start it again, it continues where it "
        "last saved"
    )
    return supervised(lambda: _together(run, folder, lost), lost)


def _together(run, folder, lost):
    """As one of several processes. One that fails leaves at once: the others would wait for it at
    their end.
    """
    processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value, HEARTBEAT.value)
    try:
        return _train(run, folder)
    except Exception as error:
        line, code = launch_flags.explain(error), launch_flags.USAGE_EXIT_CODE
        if line is None:
            # Some runtimes notice a broken connection before the heartbeat does, and say so in many
            # ways.
            broken = any(sign in str(error) for sign in BROKEN)
            line = lost if broken else f"{run.name}: {type(error).__name__}, see above"
            code = preemption.LOST_EXIT_CODE if broken else 1
            if not broken:
                traceback.print_exc()
        print(f"error: {line}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(run, folder):
    storage.make_folder(folder)
    lease = Lease(folder, what="run")
    with contextlib.ExitStack() as stack:
        if processes.first():  # one lease for all processes of a run
            stack.enter_context(lease)
        stop = stack.enter_context(
            preemption.StopSignal(leave=lease.release if processes.first() else lambda: None)
        )
        try:
            result = train(run, folder, stop, lease.check)
        except Diverged as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    preemption.leave_undisturbed()
    if result is None:
        return preemption.SAVED_EXIT_CODE
    if processes.first():
        timing = result["timing"]
        print(
            f"{run.name}: {result['validation']['bpb']:.4f} BPB on validation, "
            f"{timing['seconds']:.1f} s"
        )
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
