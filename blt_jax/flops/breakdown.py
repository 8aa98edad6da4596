"""FLOPs by line, and what costs are made of: stacks of blocks, and over what each one runs."""

import dataclasses
from typing import Literal

from blt_jax.config import Stack


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """FLOPs by line: forward and per byte, unless whoever made it says otherwise. A plain LM:
    `latent` and `head`.
    """

    encoder: float = 0.0
    pooling: float = 0.0  # encoder cross-attention and its query projection
    latent: float = 0.0  # with the projection into it
    decoder: float = 0.0  # with its cross-attention and the projection out of the latent model
    head: float = 0.0

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))

    def as_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self) | {"total": self.total}


@dataclasses.dataclass(frozen=True)
class Placed:
    """A stack of blocks in a model."""

    line: str  # of a Breakdown
    stack: Stack
    over: Literal["positions", "patches"]  # what it takes one step for
    scanned: bool = True  # its layers are one scan, which `remat` recomputes
