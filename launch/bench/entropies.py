"""Does scoring a corpus keep the devices busy? Text bytes/s from store to entropies on disk, over
the bare forward's.

The corpus is Python's own standard library in a store; the entropy model has random weights, which
the speed does not depend on. `pipeline` is stage `entropies` of `launch.preprocess`, all of it:
rows made of documents, one transfer there and one back, files written. `forward` is the same
compiled program on one ready batch of the same shape; its bytes are all ids of the batch. Both are
timed in turn, ROUNDS times; `least` and `most` are the rounds' ratios. `by_cpu_time`, on CPU, is
the ratio of CPU seconds instead: neighbours on the machine disturb it less.

Losses of the pipeline: `ids_per_byte` counts padding, repeated context, BOS and EOS,
`waited` is the share of its time in which no batch was ready. FLOPs are those of the forward by the
`exact` convention; `share_of_matmul` is over a large square matrix product in the same run.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from blt_jax.config import Data, Mesh, Stack
from blt_jax.eval import entropy_scoring
from blt_jax.families import Model, network, preset
from blt_jax.families.lm.config import Lm
from blt_jax.flops import analytic
from blt_jax.parallel import sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.record import to_dict
from blt_jax.runs.checkpoint import Checkpoints, load_params
from blt_jax.runs.config import Run
from blt_jax.storage import write_json
from blt_jax.study import entropy_stage, prepare
from launch.bench import shapes

ROUNDS, REPEATS = 3, 6  # turns; forward passes in each


def untrained(folder: Path, config: Model) -> None:
    """Makes `folder` the run folder of an entropy model with its initial weights."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "config.json", to_dict(Run("entropy", "entropy", "only", config, "", "", ""))
    )
    write_json(folder / "result.json", {"validation": {"bpb": 8.0}})
    checkpoints = Checkpoints(folder)
    checkpoints.save(
        1, {"params": jax.jit(lambda key: network.init(key, config))(jax.random.key(0))}, {}
    )
    checkpoints.close()


def measure(quick: bool = False) -> dict[str, Any]:
    cpu = jax.default_backend() == "cpu"
    config = Lm(Stack(2, 192, 3, window=128)) if cpu else preset("entropy-100m")
    megabytes = (0.1 if quick else 0.5) if cpu else (4 if quick else 32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        began = time.process_time()
        everything, _ = prepare.store(Data(), folder / "all")
        made = sum(one.text_bytes for one in everything.values()) / (time.process_time() - began)
        data = Data(max_bytes=round(megabytes * 2**20), validation_max_bytes=1 << 16)
        stores, _ = prepare.store(data, folder / "store")
        untrained(folder / "model", config)
        train = stores.pop("train")
        entropy_stage.score(folder / "model", stores)  # compiles
        forward = _forward(config, load_params(folder / "model")[1])
        meter, forwards, pipelines = entropy_scoring.Meter(), [_timed(forward)], []
        for _ in range(ROUNDS):
            pipelines.append(
                _timed(lambda: entropy_stage.score(folder / "model", {"train": train}, meter=meter))
            )
            forwards.append(_timed(forward))
            for parts in train.folder.glob("entropies-*.parts"):
                shutil.rmtree(parts)  # for the next round, as if nothing were there
    rows, length = entropy_scoring.shape(config, jax.local_devices())
    forward_Rx2 = REPEATS * rows * length / np.array(forwards)
    pipeline_Rx2 = train.text_bytes / np.array(pipelines)
    rounds_R = pipeline_Rx2[:, 0] / ((forward_Rx2[1:, 0] + forward_Rx2[:-1, 0]) / 2)
    bare, by_cpu_time = (REPEATS * rows * length / np.mean(forwards, axis=0)).tolist()
    whole, whole_by_cpu_time = (train.text_bytes / np.mean(pipelines, axis=0)).tolist()
    per_byte = analytic.per_byte(
        config, patch_size=1, context_bytes=length, convention="exact"
    ).total
    row = {
        "parameters": analytic.parameters(config)["total"],
        "rows": rows,
        "row_ids": length,
        "pipeline_bytes_per_s": whole,
        "forward_bytes_per_s": bare,
        "pipeline_over_forward": whole / bare,
        "least": float(min(rounds_R)),
        "most": float(max(rounds_R)),
        "by_cpu_time": whole_by_cpu_time / by_cpu_time if cpu else None,
        "ids_per_byte": meter.ids / train.text_bytes / ROUNDS,
        "waited": meter.waited / float(np.sum(pipelines, axis=0)[0]),
        "exact_GFLOP_per_s": per_byte * bare / 1e9,
        "share_of_matmul": per_byte * bare / shapes.matmul_rate(np.float32),
    }
    store = {"read_sort_merge_MB_per_s_and_core": made / 1e6}
    return {
        "tables": {
            f"entropies of {train.text_bytes:,} bytes, float32": [row],
            "documents to store": [store],
        }
    }


def _timed(call):
    """(wall, CPU) seconds of a call."""
    began = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def _forward(config, params):
    """A call that makes REPEATS forward passes over one ready batch, one queued behind the
    other.
    """
    mesh = make_mesh(Mesh(), jax.local_devices())
    rows, length = entropy_scoring.shape(config, jax.local_devices())
    compute = network.Compute(
        np.dtype("float32"), attention=network.backend_of(jax.default_backend())
    )
    ids = np.random.default_rng(0).integers(4, 260, (rows, length)).astype(np.int32)
    batch = jax.device_put(
        {"ids_BxL": ids, "segment_BxL": np.ones_like(ids)}, sharding.batch_sharding(mesh)
    )
    params = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))

    def passes():
        with sharding.context(mesh):
            jax.block_until_ready(
                [entropy_scoring.entropies(params, batch, config, compute) for _ in range(REPEATS)]
            )

    passes()  # compiles
    return passes
