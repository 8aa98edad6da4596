"""Rule "space": a patch begins after a space-like byte that follows another kind (docs/blt.md,
section 2; SpaceByte)."""

from typing import Any

import numpy as np

from blt_jax.config import BYTE_OFFSET
from blt_jax.patching import TYPICAL_SIZE, Array, Patching, Rule


def _space_like():
    """Bool [256]: bytes that close a patch: no ASCII letter or digit, no UTF-8 continuation."""
    byte = np.arange(256)
    word = np.zeros(256, bool)
    for first, last in (("0", "9"), ("A", "Z"), ("a", "z")):
        word |= (byte >= ord(first)) & (byte <= ord(last))
    return ~word & ((byte < 0x80) | (byte >= 0xC0))


# Bool, by id; specials are space-like.
SPACE_LIKE = np.concatenate([np.ones(BYTE_OFFSET, bool), _space_like()])


class Space(Rule):
    """A patch ends with the first space-like byte after others, and with every special id."""

    def expected_size(self, patching: Patching) -> float:
        return TYPICAL_SIZE  # of English prose (SpaceByte; BLT paper, Table 1)

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        like = SPACE_LIKE[ids]
        special = ids[..., 1:] < BYTE_OFFSET  # also after a space-like byte
        return like[..., 1:] & ~like[..., :-1] | special

    def remember(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.generic:
        return SPACE_LIKE[ids[-1]]

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        import jax.numpy as jnp

        like_B = jnp.asarray(SPACE_LIKE)[ids_B]
        return like_B, like_B & ~memory | (ids_B < BYTE_OFFSET)
