"""Bytes <-> ids of the byte models: byte + 4, BOS and EOS around a document (docs/blt.md, section
1).
"""

import numpy as np
from numpy.typing import ArrayLike

from blt_jax.config import BOS, BYTE_OFFSET, EOS


def encode(text: bytes | np.ndarray, bos: bool = True, eos: bool = True) -> np.ndarray:
    """Ids of bytes (or uint8 [N]), int32 [N + 2], or fewer where BOS or EOS is left out."""
    ids_L = np.empty(bos + len(text) + eos, np.int32)
    ids_L[bos : bos + len(text)] = np.frombuffer(text, np.uint8)
    ids_L[bos : bos + len(text)] += BYTE_OFFSET
    if bos:
        ids_L[0] = BOS
    if eos:
        ids_L[-1] = EOS
    return ids_L


def decode(ids_L: ArrayLike) -> bytes:
    """The bytes of `ids_L`; specials (below 4) are dropped."""
    ids_L = np.asarray(ids_L)
    return (ids_L[ids_L >= BYTE_OFFSET] - BYTE_OFFSET).astype(np.uint8).tobytes()
