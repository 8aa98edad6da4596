"""Rule "byte": every byte is a patch (docs/blt.md, section 2)."""

from typing import Any

import numpy as np

from blt_jax.patching import Array, Patching, Rule


class Byte(Rule):
    """Every position begins a patch."""

    reads = ()

    def expected_size(self, patching: Patching) -> float:
        return 1.0

    def longest(self, patching: Patching) -> int:
        return 1

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        return np.ones((*ids.shape[:-1], ids.shape[-1] - 1), bool)

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        return memory, position_B > 0
