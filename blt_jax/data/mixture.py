"""Weights by source: which documents a row index reads, in which order, how often.

A source of weight 2 is read twice as often as one of weight 1, a source of weight 0 never. The
weights act on the documents that are packed, not on finished rows: rows then still mix sparse and
dense sources, which is what fills both of their budgets, and the order of rows stays the plain
shuffle of one index. Rows of one source each, drawn by weight, would need as many patch slots as
the densest source, and waste them on all others.
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from blt_jax.config import ConfigError, nearest
from blt_jax.data.store import Store

PASSES = 4  # over the corpus that an index may hold


def reading_order(
    store: Store, weights: Mapping[str, float] | None = None
) -> tuple[np.ndarray, int]:
    """(documents int64 [D] in the order of reading, passes over the corpus that they are).

    `weights`: {source: weight}, 1 where not named.
    One index holds up to PASSES passes over the corpus: as many as bring each source's weight
    nearest to a whole number of readings. Where that leaves a fraction, an even part of the
    documents is read once more than the others. Readings of a document lie about as far apart as
    they can. Raises ConfigError for a source that is not there.
    """
    weight_S = np.ones(len(store.source_names))
    for name, weight in (weights or {}).items():
        if name not in store.source_names:
            hint = nearest(name, sorted(store.source_names))
            raise ConfigError(f"data.weights: no documents of source {name!r}; {hint}")
        weight_S[store.source_names.index(name)] = weight
    read = weight_S[weight_S > 0]
    if not read.size:
        raise ConfigError(
            "data.weights: every source has weight 0; give at least one a weight above 0"
        )

    def rounding(passes):
        """The largest share by which a source's readings differ from a whole number."""
        readings_S = passes * read
        return np.max(np.abs(readings_S - np.maximum(np.round(readings_S), 1)) / readings_S)

    passes = min(range(1, PASSES + 1), key=lambda n: (round(rounding(n), 9), n))
    rounds = math.ceil(passes * read.max())
    total_D = (passes * weight_S)[store.source_of]  # readings of a document, at most `rounds`
    phase_D = np.empty(len(store))
    for source in range(len(store.source_names)):
        own = store.source_of == source
        phase_D[own] = phases(own.sum())  # spreads what a fraction leaves over the documents
    before = [np.floor(total_D * r / rounds + phase_D) for r in range(rounds + 1)]
    readings = [np.flatnonzero(after > now) for now, after in itertools.pairwise(before)]
    return np.concatenate(readings), passes


def phases(count: int) -> np.ndarray:
    """float64 [count] in [0, 1): any stretch of them lies evenly there, and any below a bound
    evenly among them.
    """
    return np.arange(count) * ((math.sqrt(5) - 1) / 2) % 1
