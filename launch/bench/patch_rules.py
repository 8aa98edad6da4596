"""From entropies to the row index: text bytes per second of one core, for each step of the way.

The corpus is Python's own standard library, entropies are drawn at random (the speed does not
depend on them); rows of 8,192 bytes, patches of 4.5 bytes in the mean.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax.config import Data
from blt_jax.data import pack
from blt_jax.data.store import Store, write_entropies
from blt_jax.patching import Patching, row_layout, row_starts
from blt_jax.study import prepare

ROW_BYTES = 8192


def corpus(folder: Path, megabytes: int) -> Store:
    """The training split of the standard library, with random entropies."""
    prepare.store(Data(max_bytes=megabytes << 20, validation_max_bytes=1 << 16), folder)
    bare, rng = Store(folder, "train"), np.random.default_rng(0)
    write_entropies(folder, "train", (rng.exponential(1.0, n + 2) for n in bare.sizes), "random")
    return Store(folder, "train")


PATCHING = Patching(rule="entropy", threshold=float(np.log(4.5)))  # P(Exp(1) > log 4.5) = 1 / 4.5


def index(store: Store, out: Path) -> dict[str, Any]:
    """The header of the row index of a store."""
    starts_of = lambda i: row_starts.document_starts(store, i, PATCHING)
    return pack.build_index(store, out, positions=ROW_BYTES, starts_of=starts_of)


def measure(quick: bool = False) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        store = corpus(Path(folder) / "store", 2 if quick else 16)
        read = [(store.ids(i), store.entropies(i)) for i in range(len(store))]
        rows = []

        def timed(what, call):
            begin = time.process_time()
            result = call()
            rows.append(
                {
                    "step": what,
                    "MB_per_s_and_core": store.text_bytes / 1e6 / (time.process_time() - begin),
                }
            )
            return result

        timed(
            "read ids and entropies",
            lambda: [(store.ids(i), store.entropies(i)) for i in range(len(store))],
        )
        starts = timed(
            "rule: entropies to starts",
            lambda: [row_starts.starts(ids, e, PATCHING) for ids, e in read],
        )
        timed("starts to patch lengths", lambda: [row_layout.starts_to_lengths(s) for s in starts])
        header = timed(
            "entropies to row index, all of it", lambda: index(store, Path(folder) / "rows")
        )
    facts = {
        key: header[key] for key in ("rows", "byte_waste", "patch_waste", "positions_per_patch")
    }
    return {"tables": {"MB = 1e6 text bytes, process time": rows, "the index": [facts]}}
