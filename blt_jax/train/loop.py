"""One run, top to bottom: build, restore, loop, evaluate, close. `launch.train` is its command."""

import json
import math
import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np

from blt_jax.config import Run
from blt_jax.data import pack, pipeline
from blt_jax.data.store import Store, write_json
from blt_jax.eval import bpb
from blt_jax.parallel import rules
from blt_jax.parallel.mesh import make_mesh
from blt_jax.record import to_dict
from blt_jax.train import optimizer
from blt_jax.train.checkpoint import Checkpoints
from blt_jax.train.metrics import Metrics
from blt_jax.train.progress import RunProgress
from blt_jax.train.step import make_step, new_state


class Diverged(RuntimeError):
    """The loss stopped being a number."""


def train(run: Run, folder, stop=None):
    """Trains `run` in `folder` and returns its result, or None if `stop.requested` made it save and leave.

    A folder with a checkpoint is continued, to the same numbers that an undisturbed run gives. Raises
    Diverged with the step's number when the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_dict(run))
    started = time.monotonic()

    # ------------------------------------------------------------ build
    mesh = make_mesh(run.mesh)
    checkpoints = Checkpoints(folder)
    state = new_state(run, mesh, pretrained=checkpoints.empty)
    step_fn = make_step(run, mesh)
    schedule = optimizer.schedule(run.optimizer, run.train.steps)
    store = Store(folder / run.store, "train")
    rows = pipeline.train_batches(folder / run.index, store, run.train.rows, run.data_seed)

    # ------------------------------------------------------------ restore
    host = {"text_bytes": 0, "window_nats": 0.0, "window_bytes": 0, "seconds": 0.0}
    start, found = 0, checkpoints.restore(state)
    if found:
        start, state, host = found
        print(f"{run.name}: continues at step {start} of {run.train.steps}", flush=True)
    metrics = Metrics(folder, start)
    progress = RunProgress(run.name, run.train.steps, start)
    before = host["seconds"]

    def read(step, values):
        """Host side of step number `step` (from 1), one step behind the device."""
        values = jax.device_get(values)
        if not np.isfinite(values["loss"]):
            raise Diverged(
                f"{run.name}: the loss is {values['loss']} at step {step}; lower optimizer.learning_rate "
                f"(now {run.optimizer.learning_rate:g}) or raise optimizer.warmup_steps"
            )
        host["text_bytes"] += int(values["text_bytes"])
        host["window_nats"] += float(values["nats"])
        host["window_bytes"] += int(values["text_bytes"])
        host["seconds"] = before + time.monotonic() - started
        if step % run.train.log_every == 0 or step == run.train.steps:
            window_bpb = host["window_nats"] / math.log(2) / max(host["window_bytes"], 1)
            host["window_nats"], host["window_bytes"] = 0.0, 0
            metrics.write(
                {
                    "step": step,
                    "bpb": window_bpb,
                    "learning_rate": float(values["learning_rate"]),
                    "grad_norm": float(values["grad_norm"]),
                    "text_bytes": host["text_bytes"],
                    "seconds": round(host["seconds"], 3),
                }
            )
            rate = host["text_bytes"] / host["seconds"]
            progress.update(step, window_bpb, rate, (run.train.steps - step) * host["seconds"] / step)

    # ------------------------------------------------------------ loop
    pending = None
    batches = pipeline.iterate_from(rows, start)
    for step in range(start + 1, run.train.steps + 1):
        batch = jax.device_put(next(batches), rules.batch_sharding(mesh))
        with rules.context(mesh):
            state, values = step_fn(state, batch, schedule)
        if pending:
            read(*pending)
        pending = (step, values)
        stopping = stop is not None and stop.requested
        if stopping or step % run.train.checkpoint_every == 0 or step == run.train.steps:
            read(*pending)
            pending = None
            checkpoints.save(step, state, host)
        if stopping and step < run.train.steps:
            progress.close()
            metrics.close()
            checkpoints.close()
            print(f"{run.name}: stopped at step {step}, saved", flush=True)
            return None

    # ------------------------------------------------------------ evaluate, close
    progress.close()
    metrics.close()
    checkpoints.close()
    validation = Store(folder / run.store, "validation")
    with rules.context(mesh):
        documents = bpb.evaluate(state["params"], run, folder / run.validation_index, validation)
    write_json(folder / "validation.json", {"documents": documents})
    result = {
        "name": run.name,
        "family": run.family,
        "size": run.size,
        "seed": run.train.seed,
        "budget": run.budget,
        "steps": run.train.steps,
        "text_bytes": host["text_bytes"],
        "train_bpb": metrics.last["bpb"],
        "validation": bpb.summary(documents),
        "row_positions": pack.load_header(folder / run.index)["row_positions"],
        "timing": {
            "seconds": round(before + time.monotonic() - started, 3),
            "bytes_per_second": round(host["text_bytes"] / max(host["seconds"], 1e-9), 1),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT,
        },
    }
    cost = folder / "cost.json"
    if cost.exists():  # a run of a study: what it really spent
        planned = json.loads(cost.read_text())
        scale = host["text_bytes"] / planned["bytes"]
        result["train_flops"] = {name: flops * scale for name, flops in planned["train_flops"].items()}
    write_json(folder / "result.json", result)
    return result


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
