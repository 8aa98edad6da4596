"""Rule "entropy": a patch begins where the next byte is hard to tell (docs/blt.md, section 2)."""

from typing import Any

import numpy as np

from blt_jax.patching import Array, Patching, Rule


class Entropy(Rule):
    """Position t begins a patch if E[t-1] > threshold."""

    reads = ("entropies",)
    has_threshold = True

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        return entropies[..., 1:] > np.float32(patching.threshold)

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        return memory, entropy_B > np.float32(patching.threshold)
