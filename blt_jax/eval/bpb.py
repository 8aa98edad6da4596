"""Bits per byte of a split: every text byte counted once, the same documents for every family.

BPB = nats / (ln 2 x text bytes). The cost of specials (EOS) is in the numerator, only text bytes
are in the denominator (ARCHITECTURE.md).
"""

import functools
import math
from typing import Any

import jax
import numpy as np

from blt_jax.config import round_up
from blt_jax.data import pipeline
from blt_jax.data.store import Store
from blt_jax.families.network import nats
from blt_jax.parallel import processes, sharding
from blt_jax.parallel.run_compute import compute
from blt_jax.runs.config import Run


def evaluate(
    params: Any, run: Run, index: Any, store: Store, mesh: jax.sharding.Mesh
) -> dict[str, list]:
    """{"source": [str], "nats": [float], "text_bytes": [int]} by document of `store`, from the row
    index `index`.

    Every process of a run calls it and gets the whole result. `train.eval_rows` at a time, rounded
    up to what the devices of `mesh` divide.
    """
    score = jax.jit(
        functools.partial(
            nats, config=run.model, compute=compute(run.train, mesh.devices.flat[0].platform)
        ),
        out_shardings=sharding.everywhere(mesh),
    )
    row_offsets, spans = pipeline.span_table(index)
    total_nats, total_bytes = np.zeros(len(store)), np.zeros(len(store), np.int64)
    rows = round_up(run.train.eval_rows, sharding.row_devices(mesh))
    compiled = None
    with sharding.context(mesh):
        for row_numbers, batch in pipeline.validation_batches(index, store, rows):
            whole = processes.from_whole(mesh, batch)
            if compiled is None:
                compiled = score.lower(params, whole).compile()
                processes.wait("evaluation compiled")
            nats_BxL = np.asarray(compiled(params, whole), np.float64)
            for row, number in enumerate(row_numbers):
                segment_L = batch["segment_BxL"][row]
                real = segment_L > 0
                documents = spans[row_offsets[number] + segment_L[real] - 1, 0]
                np.add.at(total_nats, documents, nats_BxL[row][real])
                np.add.at(total_bytes, documents, batch["bytes_BxL"][row][real])
    sources = [store.source_names[s] for s in store.source_of]
    return {"source": sources, "nats": total_nats.tolist(), "text_bytes": total_bytes.tolist()}


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Of a sum of nats over so many bytes of text."""
    return nats / math.log(2) / max(text_bytes, 1)


def summary(documents: dict[str, list]) -> dict[str, Any]:
    """Totals and totals by source of what `evaluate` returns."""
    by_source: dict[str, dict[str, Any]] = {}
    for source, n, b in zip(
        documents["source"], documents["nats"], documents["text_bytes"], strict=True
    ):
        entry = by_source.setdefault(source, {"nats": 0.0, "text_bytes": 0})
        entry["nats"] += n
        entry["text_bytes"] += b
    total, text_bytes = sum(documents["nats"]), sum(documents["text_bytes"])
    return {
        "bpb": bits_per_byte(total, text_bytes),
        "nats": total,
        "text_bytes": text_bytes,
        "by_source": by_source,
    }
