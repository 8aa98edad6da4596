"""Why the conventions differ: "executed" less "exact" or "paper", line by line, each part with its
cause.

Each part is derived from the config on its own, not as what is left over, so that their sum, which
a test holds to the whole difference, says that nothing goes unexplained. Only the last three, which
are about the backward pass, are differences of counts that the tracer has checked.
"""

import dataclasses
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.flops.analytic import executed_row, per_byte, whole_row
from blt_jax.flops.breakdown import Breakdown
from blt_jax.flops.executed import ATTENTIONS, Row
from blt_jax.flops.formulas import reach

CAUSES = {
    # "paper" -> "exact"
    "window": "a window costs its true mean reach, not the (m + 1) / 2 of a context of its length",
    "feed-forward": "the real hidden width, which is rounded up, not 8/3 of the width",
    "grouped keys": "fewer key and value heads than query heads",
    "byte vocabulary": "a head over 260 ids, not 256",
    "cross layers": "cross-attention only at the layers that have it, not at every local layer",
    "cross reach": "a patch reads all of its bytes and a byte all of its slots; no causal average "
    "over them",
    "projections": "bytes -> query slots, slots -> latent width, latent width -> bytes",
    # "exact" -> "executed", forward
    "whole units": "a row has a whole number of patch slots (rounded up) or tokens (rounded)",
    "masked pairs": "attention works in blocks: pairs that the mask removes, and the filled-up "
    "last block",
    "elementwise": "slots weigh the values of bytes by elementwise products, which are no matrix "
    "product",
    # and of a training step
    "scores again": "blockwise attention makes its scores again in the backward pass",
    "head again": "a head too large for memory works in parts, which the backward pass makes again",
    "recomputation": "remat runs the forward pass of scanned layers again, but for its last "
    "product",
}


def differences(
    model: Any,
    *,
    patch_size: float,
    context_bytes: float,
    convention: str = "exact",
    training: bool = False,
    remat: str = "none",
    attention: str = ATTENTIONS[0],
) -> dict[str, Breakdown]:
    """FLOPs per byte, "executed" less `convention` ("exact" or "paper"), for each of `CAUSES` that
    has a part in it.

    The sum over causes of each line is the whole difference. `training`: of a training step, for
    which the other conventions take 3 x forward; `remat` and `attention` as in `executed_row`, the
    rest as in `per_byte`. Raises ConfigError as these do, and for another `convention`.
    """
    if convention not in ("paper", "exact"):
        raise ConfigError(f"convention = {convention!r}: differences are told from paper or exact")
    forward: dict[str, Any] = dict(
        patch_size=patch_size, context_bytes=context_bytes, convention="exact"
    )
    exact = per_byte(model, **forward)
    unit = 1.0 if model.unit == "byte" else patch_size
    length, slots = whole_row(model, unit, context_bytes)
    size = context_bytes / (length if model.patches == "none" else slots)
    whole = per_byte(model, **forward | {"patch_size": size})

    parts = [("whole units", line, getattr(whole, line) - value) for line, value in _lines(exact)]
    parts += _program(model, length, slots, context_bytes, attention)
    parts += model.cost_differences("executed", patch_size, context_bytes)
    if convention == "paper":
        parts += _formulas(model, unit, context_bytes)
        parts += model.cost_differences("paper", unit, context_bytes)
    parts = [(cause, line, value * (3 if training else 1)) for cause, line, value in parts]

    if training:
        row = lambda **options: executed_row(model, length, slots, attention=attention, **options)
        once, step, repeated = row(), row(training=True), row(training=True, remat=remat)
        for line, value in _lines(step):
            again = "head again" if line == "head" else "scores again"
            parts.append((again, line, (value - 3 * getattr(once, line)) / context_bytes))
            parts.append(("recomputation", line, (getattr(repeated, line) - value) / context_bytes))
    return _by_cause(parts)


def _lines(breakdown):
    return [(field.name, getattr(breakdown, field.name)) for field in dataclasses.fields(breakdown)]


def _by_cause(parts):
    by_cause = {}
    for cause, line, value in parts:
        if value:
            of_cause = by_cause.setdefault(cause, {})
            of_cause[line] = of_cause.get(line, 0.0) + value
    return {cause: Breakdown(**by_cause[cause]) for cause in CAUSES if cause in by_cause}


def _program(model, length, slots, context_bytes, attention):
    """ "exact" -> "executed", forward, of stacks."""
    row = Row(length, slots, False, False, attention)
    for placed in model.stacks():
        s, n = placed.stack, slots if placed.over == "patches" else length
        masked = row.pairs(s.window, n) - n * reach(s, n)
        yield "masked pairs", placed.line, 4 * s.layers * s.width * masked / context_bytes


def _formulas(model, unit, context):
    """ "paper" -> "exact", forward, per byte, of stacks and head."""
    position = unit if model.reads == "token" else 1.0
    for placed in model.stacks():
        s, size = placed.stack, unit if placed.over == "patches" else position
        grouped = 4 * s.width**2 * (s.kv_heads / s.heads - 1)
        if s.window:
            longer = reach(s, context / size) - (s.window + 1) / 2
            yield "window", placed.line, 4 * s.layers * s.width * longer / size
        wider = s.layers * s.width * (6 * s.ffn - 16 * s.width) / size
        yield "feed-forward", placed.line, wider
        yield "grouped keys", placed.line, s.layers * grouped / size
    if model.reads == "byte":
        yield "byte vocabulary", "head", 2 * model.head_width * 4
