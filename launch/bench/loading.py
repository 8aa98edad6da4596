"""Does the loader keep up? Rows per second that it makes against rows per second that a training
step eats.

One row is 8,192 bytes with patches of 4.5 bytes. The step is the bench's 8M-parameter BLT, forward
and backward, on this machine; `loader_over_step` above 1 means that the device never waits. `one
thread` is the work of making a batch; `loader` is the prefetching iterator of `launch.train`.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from blt_jax.data import pipeline
from blt_jax.families import network
from blt_jax.families.network import PLAIN, nats
from launch.bench import patch_rules, shapes

ROWS = 2


def measure(quick: bool = False) -> dict[str, Any]:
    batches = 8 if quick else 64
    with tempfile.TemporaryDirectory() as folder:
        store = patch_rules.corpus(Path(folder) / "store", 2 if quick else 16)
        patch_rules.index(store, Path(folder) / "rows")
        order = pipeline.train_batches(Path(folder) / "rows", store, ROWS, seed=0)
        batch = order[0]
        begin = time.perf_counter()
        for number in range(batches):
            order[number]
        alone = ROWS * batches / (time.perf_counter() - begin)
        iterator = pipeline.iterate_from(order)
        for _ in range(2 * pipeline.AHEAD):
            next(iterator)  # what was made ahead
        begin = time.perf_counter()
        for _ in range(batches):
            next(iterator)
        loader = ROWS * batches / (time.perf_counter() - begin)
        iterator.close()

    config = shapes.blt()
    params = network.init(jax.random.key(0), config)
    step = jax.jit(jax.value_and_grad(lambda p, b: nats(p, b, config, PLAIN).mean()))
    eaten = ROWS / shapes.fastest(lambda: step(params, batch), 1 if quick else 3)
    row = {"one_thread_rows_per_s": alone, "loader_rows_per_s": loader, "step_rows_per_s": eaten}
    row |= {
        "loader_MB_per_s": loader * patch_rules.ROW_BYTES / 1e6,
        "loader_over_step": loader / eaten,
    }
    return {"tables": {f"rows of {patch_rules.ROW_BYTES} bytes": [row]}}
