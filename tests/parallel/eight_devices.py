"""Trains each tiny model 3 steps on 1 device and on meshes of 8 forced host devices, and tells how
far they are apart.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu python -m tests.parallel.eight_devices

A program of its own, because a process has as many host devices as it was started with. Prints
JSON: for every model and mesh the differences and the collectives of the compiled step.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from blt_jax.config import Mesh, Optimizer, Stack, Train
from blt_jax.families import head
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.nn import embedding
from blt_jax.parallel import sharded_embedding, sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.patching import Patching
from blt_jax.runs.config import Run
from blt_jax.train import aot, optimizer
from blt_jax.train.step import make_step, new_state, state_shardings

ROWS, L, P, STEPS = 16, 32, 8, 3
LOCAL = Stack(1, 32, 4, window=8, ffn=32)
BLT = Blt(LOCAL, Stack(1, 64, 4, ffn=32), LOCAL, hash_sizes=(3, 4), hash_rows=4096)
LM = Lm(Stack(1, 64, 4, ffn=32), vocab=384, unit="token")
# eps: entries whose gradient is rounding noise would else move by the sign of it.
ADAM = Optimizer(learning_rate=1e-2, warmup_steps=0, eps=1e-4)
RUNS = {
    "BLT": (BLT, ADAM),
    "token LM": (LM, ADAM),
    "BLT, adafactor tables": (BLT, dataclasses.replace(ADAM, tables="adafactor")),
}
MESHES = {
    "data=8": Mesh(data=8),
    "fsdp=8": Mesh(data=1, fsdp=8),
    "tensor=4 x data=2": Mesh(data=2, tensor=4),
    "data=2 x fsdp=2 x tensor=2": Mesh(data=2, fsdp=2, tensor=2),
}
MIXED = "data=2 x fsdp=2 x tensor=2"
CASES = [  # name of RUNS, mesh, rows that a device takes at a time (0: all)
    ("BLT", "data=8", 0),
    ("BLT", "fsdp=8", 0),
    ("BLT", "tensor=4 x data=2", 4),
    ("BLT", MIXED, 0),
    ("BLT, adafactor tables", MIXED, 0),
    ("token LM", "data=8", 0),
    ("token LM", "fsdp=8", 0),
    ("token LM", "tensor=4 x data=2", 0),
    ("token LM", MIXED, 2),
]


def run_of(model, rules_of, device_rows):
    patched = isinstance(model, Blt)
    paths = dict(store="", index="", validation_index="", tokenizer="" if patched else "t")
    train = Train(rows=ROWS, device_rows=device_rows, dtype="float32", attention="banded")
    kind = dict(
        model=model, patching=Patching() if patched else None, optimizer=rules_of, train=train
    )
    return Run(name="x", family="x", size="x", **paths, **kind)


def batches(model):
    """STEPS batches of rows with unequal numbers of targets, documents, empty patches and
    padding.
    """
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        ids = draw.integers(4, model.vocab, (ROWS, L + 1), dtype=np.int32)
        real = np.arange(L) < draw.integers(L // 2, L, (ROWS, 1))
        segment = np.where(real, 1 + (np.arange(L) >= L // 3), 0).astype(np.int32)
        batch = {"ids_BxL": ids[:, :-1], "targets_BxL": ids[:, 1:], "segment_BxL": segment}
        batch |= {"loss_mask_BxL": real.astype(np.float32), "bytes_BxL": real.astype(np.int32)}
        if isinstance(model, Blt):
            patch = np.where(real, np.arange(L) // 5, P).astype(np.int32)
            batch |= {"patch_BxL": patch, "read_BxL": np.maximum(patch - 1, 0)}
            batch |= {"patch_segment_BxP": np.ones((ROWS, P), np.int32)}
        yield batch


def trained(run, mesh, start):
    """(parameters, losses, collectives) after STEPS steps from the parameters `start`, in NumPy."""
    step, layout = make_step(run, mesh), state_shardings(run, mesh)
    moments = optimizer.transform(run.optimizer).init(start)
    state = {"params": start, "moments": moments, "step": np.int32(0), "recent_loss": np.float32(0)}
    state = jax.device_put(state, layout)
    schedule, losses = optimizer.schedule(run.optimizer, 10), []
    for batch in batches(run.model):
        batch = jax.device_put(batch, sharding.batch_sharding(mesh))
        if not losses:
            with sharding.context(mesh):
                compiled = step.lower(state, batch, schedule).compile()
        state, metrics = compiled(state, batch, schedule)
        losses.append(float(metrics["loss"]))
    return jax.device_get(state["params"]), losses, aot.collectives(compiled.as_text())


def apart(found, expected):
    """The largest over arrays of max |a - b| / max |b|."""
    each = jax.tree.map(
        lambda a, b: float(np.max(np.abs(a - b)) / np.max(np.abs(b))), found, expected
    )
    return max(jax.tree.leaves(each))


def looked_up():
    """Bytes of one device for value and gradient of a lookup alone, on the mixed mesh."""
    mesh, (T, R, E), (B, L) = make_mesh(MESHES[MIXED]), (6, 4096, 256), (16, 128)
    table = jax.ShapeDtypeStruct(
        (T * R, E), jnp.float32, sharding=sharding.sharding(mesh, (None, "columns"), (T * R, E))
    )
    ids = jax.ShapeDtypeStruct(
        (T, B, L), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec(None, sharding.BATCH))
    )

    def total(table, ids):
        h_BxLxE = sharded_embedding.lookup(embedding.lookup, table, ids, jnp.bfloat16)
        return (h_BxLxE.astype(jnp.float32) ** 2).sum()

    with sharding.context(mesh):
        compiled = jax.jit(jax.value_and_grad(total)).lower(table, ids).compile()
    memory = compiled.memory_analysis()
    told = {
        "table": T * R * E * 4,
        "batch": B * L * E * 4,
        "temporaries": memory.temp_size_in_bytes,
    }
    return told | {
        "out": memory.output_size_in_bytes,
        "collectives": aot.collectives(compiled.as_text()),
    }


def main():
    head.LOGITS = 4096  # heads read their row in parts, as those of large vocabularies do
    alone, told = {}, []
    for name, mesh, device_rows in CASES:
        run = run_of(*RUNS[name], 0)
        if name not in alone:
            one = make_mesh(Mesh(), jax.devices()[:1])
            start = jax.device_get(new_state(run, one)["params"])
            alone[name] = start, trained(run, one, start)
        start, (params, losses, _) = alone[name]
        run = dataclasses.replace(
            run, train=dataclasses.replace(run.train, device_rows=device_rows)
        )
        ours, our_losses, collectives = trained(run, make_mesh(MESHES[mesh]), start)
        moved = apart(params, start)
        told.append(
            {
                "model": name,
                "mesh": mesh,
                "device_rows": device_rows,
                "parameters": apart(ours, params),
                "loss": max(abs(a / b - 1) for a, b in zip(our_losses, losses, strict=True)),
                "moved": moved,
                "collectives": collectives,
            }
        )
    print(json.dumps({"steps": told, "lookup": looked_up()}))


if __name__ == "__main__":
    main()
