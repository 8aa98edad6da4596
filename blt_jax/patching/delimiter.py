"""Rule "bpe": a patch begins after each delimiter, which stands where a token ends (docs/blt.md,
section 2)."""

from typing import Any

import numpy as np

from blt_jax.config import DELIMITER
from blt_jax.patching import Array, Patching, Rule


class Delimiter(Rule):
    """Position t begins a patch if id t - 1 is the delimiter."""

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        return ids[..., 1:] == DELIMITER

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        return memory, ids_B == DELIMITER
