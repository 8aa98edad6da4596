"""Rule "relative": a patch begins where the entropy rises (docs/blt.md, section 2)."""

from typing import Any

import numpy as np

from blt_jax.patching import Array, Patching, Rule


def rises(entropies: np.ndarray) -> np.ndarray:
    """E[t-1] - E[t-2] for t = 3 to N, from [..., N]."""
    return entropies[..., 2:] - entropies[..., 1:-1]


class Relative(Rule):
    """Position t begins a patch if E[t-1] - E[t-2] > threshold; position 2 always does."""

    reads = ("entropies",)
    has_threshold = True

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        rising = rises(entropies) > np.float32(patching.threshold)
        return np.concatenate([np.ones((*ids.shape[:-1], 1), bool), rising], axis=-1)

    def remember(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.generic:
        return np.float32(entropies[-1])

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        rising_B = entropy_B - memory > np.float32(patching.threshold)
        return entropy_B, (position_B == 2) | rising_B
