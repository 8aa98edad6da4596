"""Rule "combined": a patch begins where the entropy is high and rises (docs/blt.md, section 2)."""

from typing import Any

import numpy as np

from blt_jax.patching import Array, Patching, Rule
from blt_jax.patching.relative import rises


class Combined(Rule):
    """Position t begins a patch if E[t-1] > threshold and E[t-1] - E[t-2] > threshold_add.

    Position 2 always does, and 3 never. The published rule means to keep starts apart, but its
    guard blocks only the position after the forced start at 2.
    """

    reads = ("entropies",)
    has_threshold = True  # with the rise `threshold_add` as it is

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        high = entropies[..., 2:] > np.float32(patching.threshold)
        flags = high & (rises(entropies) > np.float32(patching.threshold_add))
        flags[..., :1] = False
        return np.concatenate([np.ones((*ids.shape[:-1], 1), bool), flags], axis=-1)

    def remember(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.generic:
        return np.float32(entropies[-1])

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        high_B = entropy_B > np.float32(patching.threshold)
        rising_B = entropy_B - memory > np.float32(patching.threshold_add)
        return entropy_B, (position_B == 2) | (position_B > 3) & high_B & rising_B
