"""Memory of one training step on one device, from the config alone: a model of it, not a
measurement.

State is exact but for what is too small to split. Activations are what the backward pass needs of
each layer in `nn`, counted from its code; compilers fuse some away and keep others twice.
`launch.plan --compile` asks the compiler itself; a test holds the model to a compiled step within
the factor that it names.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from blt_jax.config import TABLE_BYTES, Stack, Train, split_over
from blt_jax.flops import analytic

FLOAT32 = 4  # bytes: parameters, optimiser state, gradients, statistics
BLOCK = 128  # keys that a banded block reads beyond its window, on either side


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device. The first three lie there between steps; the others come and go."""

    parameters: float
    moments: float  # Adam's two, of all but the hash tables
    # the hash tables', by `optimizer.tables`: 8 bytes per parameter, 2 or next to none
    table_moments: float
    gradients: float  # with `train.device_rows`: of the rows so far and of those at hand
    kept: float  # activations that wait for the backward pass
    working: float  # the largest layer's own, while its backward pass runs
    gathered: float  # weights whole again for one layer, and their gradient before it is split
    logits: float  # of as many positions as the head takes at a time, with their gradient

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))

    def as_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self) | {"total": self.total}


def per_device(
    model: Any,
    train: Train,
    mesh: Sequence[int],
    *,
    positions: int,
    slots: int = 0,
    head_positions: int = 0,
    attention: str = "splash",
    tables: str = "adam",
) -> Memory:
    """Memory of `model`'s step in bfloat16. `mesh`: devices per axis (data, fsdp, tensor).

    `positions`: of a row, bytes or tokens; `slots`: patch slots of a row; `head_positions`: of a
    row that the head reads at a time (0: all); `attention`: a backend of self-attention; `tables`:
    the optimiser's rule of the hash tables. Rows that do not divide among the devices count as
    their share.
    """
    rows = train.rows / (mesh[0] * mesh[1])
    parts = 1 if not train.device_rows else max(1, rows / train.device_rows)
    row = Row(
        model, train.remat, attention, positions, slots, 2 if train.dtype != "float32" else FLOAT32
    )
    tables_split = analytic.parameters(model)["hash_tables"] / _column_ways(model, mesh)
    split = _split_parameters(model, mesh) + tables_split
    rows /= parts
    return Memory(
        parameters=FLOAT32 * split,
        moments=2 * FLOAT32 * (split - tables_split),
        table_moments=TABLE_BYTES[tables] * tables_split,
        gradients=FLOAT32 * split * (2 if parts > 1 else 1),
        kept=rows * row.kept(),
        working=rows * row.working(),
        gathered=_gathered(model, row.size) / mesh[2] if mesh[1] > 1 else 0.0,
        logits=rows * (head_positions or positions) * model.vocab * 3 * FLOAT32 / mesh[2],
    )


def _split_parameters(model, mesh):
    """Parameters of one device but for the hash tables (`parallel/sharding.py`): widths go over
    fsdp, heads and feed-forward over tensor; an axis that does not divide its dimension leaves it
    whole.
    """
    _, fsdp, tensor = mesh
    counts = analytic.parameters(model)
    widths = {placed.line: placed.stack.width for placed in model.stacks()}
    total = counts["embedding"] / _column_ways(model, mesh)
    for part in ("encoder", "pooling", "latent", "decoder", "head"):
        width = widths.get(part, model.head_width)
        total += counts[part] / ((fsdp if width % fsdp == 0 else 1) * tensor)
    return total


def _column_ways(model, mesh):
    """How many devices share a table that is looked up: as many as divide its columns."""
    over = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    return math.prod(over[axis] for axis in split_over(model.embedding_width, over))


def _gathered(model, size):
    """The larger of a layer and the head: in the compute type, and their gradient in float32."""
    layers = max(
        (placed.stack.layers for placed in model.stacks() if placed.line == "latent"), default=1
    )
    head = 0 if model.tied else model.vocab * model.head_width
    layer = analytic.parameters(model)["latent"] / max(layers, 1)
    return max(layer, head) * (size + FLOAT32)


@dataclasses.dataclass(frozen=True)
class Row:
    """Bytes of activations of one row."""

    model: Any
    remat: str
    attention: str
    L: int
    P: int
    size: int  # bytes of the compute type

    def stacks(self) -> list[tuple[Stack, int]]:
        """[(stack, its positions)]"""
        length = {"positions": self.L, "patches": self.P}
        return [(placed.stack, length[placed.over]) for placed in self.model.stacks()]

    def kept(self) -> float:
        """What waits for the backward pass."""
        total = 0.0
        for stack, length in self.stacks():
            whole = self.remat != "full"
            layer = self.block(stack, length) if whole else self.size * stack.width * length
            total += stack.layers * layer
        return total + self.model.other_activations(self)[0]

    def working(self) -> float:
        """Twice what a layer keeps: recomputed values, and their gradients."""
        layers = [self.block(stack, length) for stack, length in self.stacks() if stack.layers]
        return 2 * max([*layers, *self.model.other_activations(self)[1]], default=0.0)

    def block(self, s: Stack, length: int) -> float:
        """What the backward pass of `nn.block.Block` reads: x, norms, q, k, v, attention's result,
        the feed-forward.
        """
        values = 5 * s.width + 2 * s.kv_heads * s.head_width + 4 * s.ffn
        return length * (self.size * values + FLOAT32 * s.heads) + self._scores(s, length)

    def _scores(self, s, length):
        """Only the banded form holds scores, all of them: float32 and the weights."""
        if self.attention != "banded":
            return 0.0
        reach = min(length, s.window + 2 * BLOCK) if s.window else length
        return s.heads * length * reach * (FLOAT32 + self.size)
