"""Forward FLOPs per text byte of a model, from its config alone, in a named convention.

A multiply-add is 2 FLOPs; training is 3 x forward; lookups (embeddings, hash tables) are 0.
Document boundaries are ignored: contexts are full. The entropy model is never inside: ask for it
with its own config.

- "paper": the formulas of the BLT paper (docs/blt.md, section 10): feed-forward of 16 h^2, half of
  the window as the mean context, no projections between patches and bytes, 256 bytes in the head,
  and cross-attention, where there is any, at every local layer.
- "exact": every matrix product that the architecture needs: the real feed-forward, grouped keys
  and values, true causal and window averages, every projection.
- "executed": every matrix product that the program does, to the unit; `trace.count` and a test hold
  it to that. `differences` says where, and why, it departs from the others. Work that is no matrix
  product counts 0 in all conventions.

A family says which stacks it has and what it multiplies besides (`families.Model`).
"""

import dataclasses
import math
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.flops.breakdown import Breakdown
from blt_jax.flops.executed import ATTENTIONS, Row
from blt_jax.flops.formulas import FORMULAS

CONVENTIONS = ("paper", "exact", "executed")


def per_byte(model: Any, *, patch_size: float, context_bytes: float, convention: str) -> Breakdown:
    """Breakdown of `model`. `patch_size`: bytes per patch, or per token of a token model; unused
    for a byte LM.

    `context_bytes`: bytes per row. "executed" counts a row of that many positions and
    ceil(context_bytes / patch_size) patch slots, or of round(context_bytes / patch_size) tokens.
    Raises ConfigError for an unknown convention or a size that is not positive.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention = {convention!r}: known are {', '.join(CONVENTIONS)}")
    unit = 1.0 if model.unit == "byte" else patch_size
    for name, value in (("patch_size", unit), ("context_bytes", context_bytes)):
        if not value > 0:
            raise ConfigError(f"{name} = {value!r}: must be a positive number of bytes")
    if convention == "executed":
        row = executed_row(model, *whole_row(model, unit, context_bytes))
        return Breakdown(*(flops / context_bytes for flops in dataclasses.astuple(row)))
    count = FORMULAS[convention]
    position = unit if model.reads == "token" else 1.0  # bytes of a position
    by_line = dict.fromkeys(LINES, 0.0)
    for placed in model.stacks():
        size = unit if placed.over == "patches" else position
        by_line[placed.line] += count.stack(placed.stack, context_bytes / size) / size
    for line, flops in model.other_flops(convention, patch_size, context_bytes):
        by_line[line] += flops
    vocab = count.byte_vocab if model.reads == "byte" else model.vocab
    by_line["head"] += count.head(model.head_width, vocab) / position
    return Breakdown(**by_line)


LINES = tuple(field.name for field in dataclasses.fields(Breakdown))


def whole_row(model: Any, unit: float, context_bytes: float) -> tuple[Any, int]:
    """(positions, patch slots) of a row of `context_bytes` at `unit` bytes per patch or token."""
    units = round(context_bytes / unit, 9)  # a patch size of L / P means P slots, not P + 1
    return round(units) if model.reads == "token" else context_bytes, math.ceil(units)


def executed_row(
    model: Any,
    positions: int,
    slots: int = 0,
    *,
    remat: str = "none",
    training: bool = False,
    attention: str = ATTENTIONS[0],
) -> Breakdown:
    """Matrix-product FLOPs, whole numbers, of one row in `network.apply` with `Compute(remat=...,
    attention=...)`.

    `positions`: bytes or tokens per row, L. `slots`: patch slots per row, P; unused without
    patches.

    `training`: with the backward pass. Both operands of every product need a gradient, so it costs
    two more; but blockwise attention recomputes its scores, five products for two. remat "full"
    then also repeats the forward pass of every scanned layer, except its last product (`down` of
    the feed-forward), whose result no gradient needs.

    Raises ConfigError for sizes that are not whole and positive, and for an unknown `remat` or
    `attention`: "splash" is a kernel whose work is not counted here.
    """
    sizes = {"positions": positions} | ({"slots": slots} if model.patches != "none" else {})
    for name, value in sizes.items():
        if not (value >= 1 and value % 1 == 0):
            raise ConfigError(f"{name} = {value!r}: a row needs a whole number of them, at least 1")
    for name, choice, known in (
        ("remat", remat, ("none", "full")),
        ("attention", attention, ATTENTIONS),
    ):
        if choice not in known:
            raise ConfigError(f"{name} = {choice!r}: can count {', '.join(known)}")
    row = Row(int(positions), int(slots), training, training and remat == "full", attention)
    by_line = dict.fromkeys(LINES, 0)
    for placed in model.stacks():
        length = row.P if placed.over == "patches" else row.L
        by_line[placed.line] += row.stack(placed.stack, length, placed.scanned)
    for line, flops in model.other_executed(row):
        by_line[line] += flops
    by_line["head"] += row.head(model.head_width, model.vocab)
    return Breakdown(**by_line)


def training(forward: float) -> float:
    """FLOPs of forward and backward: 3 x forward. Nothing is recomputed; `executed_row` counts that
    too.
    """
    return 3 * forward


def parameters(model: Any) -> dict[str, int]:
    """Parameters by part, as `network.init` makes them, and their `total`; `non_embedding` leaves
    out the embedding and hash tables.
    """
    parts = model.parameters()
    total = sum(parts.values())
    return parts | {
        "total": total,
        "non_embedding": total - parts["embedding"] - parts["hash_tables"],
    }
