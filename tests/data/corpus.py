"""Small corpora and start rules for the data tests."""

import numpy as np

from blt_jax.data.sources import Document
from blt_jax.data.store import Store, merge_text, write_text
from blt_jax.patching import Patching
from blt_jax.patching.row_starts import starts

ODD = [b"\x00", b"x", b"\xff\xfe\x00 invalid \xed\xa0\x80", "日本 語 é\u0301".encode(), b"\n" * 50]


def write_store(documents, folder, split, notes=None, part=100):
    """The store of a list of documents, in their order, `part` documents to a part."""
    begins = range(0, len(documents), part)
    for number, begin in enumerate(begins):
        write_text(documents[begin : begin + part], folder, split, number, "")
    merge_text(folder, split, len(begins), "", notes)


def made(folder, count=60, seed=0, largest=400, split="train", extra=()):
    """A store of random words with dense and sparse documents, and the odd ones."""
    rng = np.random.default_rng(seed)
    documents = [Document(text, "odd", "") for text in (*ODD, *extra)]
    for i in range(count):
        size, word = int(rng.integers(1, largest)), (2, 5, 12)[i % 3]
        letters = rng.integers(97, 123, size).astype(np.uint8)
        letters[rng.random(size) < 1 / word] = 32
        documents.append(Document(letters.tobytes(), f"word{word}", ""))
    write_store(documents, folder, split)
    return Store(folder, split)


def space_starts(store):
    return lambda i: starts(store.ids(i), None, Patching(rule="space"))
