"""The bytes and steps that a training-FLOP budget buys, for byte and token models alike."""

import dataclasses

from blt_jax.config import ConfigError
from blt_jax.flops.analytic import per_byte, training


@dataclasses.dataclass(frozen=True)
class Match:
    bytes: float  # text bytes of all steps
    steps: int
    flops: float  # training FLOPs of those bytes
    mismatch: float  # flops / budget - 1, from rounding to whole steps


def budget_run(model, *, budget, bytes_per_unit, context_bytes, convention, bytes_per_step):
    """Match of `budget` training FLOPs in `convention`. `bytes_per_unit`: bytes per patch or token.

    Raises ConfigError when the budget does not buy one step.
    """
    forward = per_byte(model, patch_size=bytes_per_unit, context_bytes=context_bytes, convention=convention).total
    per_step = training(forward) * bytes_per_step
    steps = round(budget / per_step)
    if steps < 1:
        raise ConfigError(
            f"budget {budget:.3g} is too small for one step, which costs {per_step:.3g} FLOPs; "
            "raise budgets, or lower train.rows or data.row_bytes"
        )
    return Match(steps * bytes_per_step, steps, steps * per_step, steps * per_step / budget - 1)
