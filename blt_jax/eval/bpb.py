"""Bits per byte of a split: every text byte counted once, the same documents for every family.

BPB = nats / (ln 2 x text bytes). The cost of specials (EOS) is in the numerator, only text bytes are in
the denominator (design, section 4).
"""

import functools
import math

import jax
import numpy as np

from blt_jax.config import Run
from blt_jax.data import pipeline
from blt_jax.train.step import compute, nats


def evaluate(params, run: Run, index, store):
    """{"source": [str], "nats": [float], "text_bytes": [int]} by document of `store`, from the row index `index`."""
    score = jax.jit(functools.partial(nats, config=run.model, compute=compute(run.train, jax.default_backend())))
    row_offsets, spans = pipeline.span_table(index)
    total_nats, total_bytes = np.zeros(len(store)), np.zeros(len(store), np.int64)
    for row_numbers, batch in pipeline.validation_batches(index, store, run.train.eval_rows):
        nats_BxL = np.asarray(score(params, batch), np.float64)
        for row, number in enumerate(row_numbers):
            segment_L = batch["segment_BxL"][row]
            real = segment_L > 0
            documents = spans[row_offsets[number] + segment_L[real] - 1, 0]
            np.add.at(total_nats, documents, nats_BxL[row][real])
            np.add.at(total_bytes, documents, batch["bytes_BxL"][row][real])
    sources = [store.source_names[s] for s in store.source_of]
    return {"source": sources, "nats": total_nats.tolist(), "text_bytes": total_bytes.tolist()}


def bits_per_byte(nats, text_bytes):
    return nats / math.log(2) / max(text_bytes, 1)


def summary(documents):
    """Totals and totals by source of what `evaluate` returns."""
    by_source = {}
    for source, n, b in zip(documents["source"], documents["nats"], documents["text_bytes"], strict=True):
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
