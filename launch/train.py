"""Train one run: the program of every job, on any engine.

    python -m launch.train --config=experiments/resolved.py:STUDY/runs/NAME/config.json --workdir=STUDY/runs/NAME

Continues from the newest checkpoint in --workdir. Writes config.json, metrics.jsonl, tensorboard/,
checkpoints/, validation.json and, last, result.json. Exit code 0: finished; 42: told to stop, saved, run me
again; 1: diverged or failed; 2: a setting or input is wrong.
"""

import logging
import sys
from pathlib import Path

import jax
from absl import flags

from blt_jax.config import Run
from blt_jax.record import build
from blt_jax.train import preemption
from blt_jax.train.lease import Lease
from blt_jax.train.loop import Diverged, train
from launch import flags as launch_flags

CONFIG = launch_flags.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
CACHE = flags.DEFINE_string("compile_cache", "", "Folder that keeps compiled programs for later runs.")


def main(_):
    run = build(Run, CONFIG.value.to_dict())
    folder = Path(WORKDIR.value)
    if (folder / "result.json").exists():
        print(f"{run.name}: done already ({folder / 'result.json'})")
        return 0
    if CACHE.value:
        jax.config.update("jax_compilation_cache_dir", str(Path(CACHE.value).absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells every save at INFO
    folder.mkdir(parents=True, exist_ok=True)
    with Lease(folder, what="run"), preemption.StopSignal() as stop:
        try:
            result = train(run, folder, stop)
        except Diverged as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    if result is None:
        return preemption.SAVED_EXIT_CODE
    timing = result["timing"]
    print(f"{run.name}: {result['validation']['bpb']:.4f} BPB on validation, {timing['seconds']:.1f} s")
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
