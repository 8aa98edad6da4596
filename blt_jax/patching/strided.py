"""Rule "strided": a patch begins at every multiple of `stride` (docs/blt.md, section 2;
Megabyte)."""

from typing import Any

import numpy as np

from blt_jax.config import need
from blt_jax.patching import Array, Patching, Rule


class Strided(Rule):
    """Position t begins a patch if `stride` divides it."""

    reads = ()

    def check(self, patching: Patching) -> None:
        need(patching.stride >= 1, "patching.stride", patching.stride, "must be at least 1 byte")

    def expected_size(self, patching: Patching) -> float:
        return float(patching.stride)

    def shortest(self, patching: Patching) -> int:
        return patching.stride

    def longest(self, patching: Patching) -> int:
        return patching.stride

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: Patching) -> np.ndarray:
        flags = np.arange(2, ids.shape[-1] + 1) % patching.stride == 0
        return np.broadcast_to(flags, (*ids.shape[:-1], flags.size))

    def step(
        self, memory: Any, position_B: Array, ids_B: Array, entropy_B: Array, patching: Patching
    ) -> tuple[Any, Array]:
        return memory, position_B % patching.stride == 0
