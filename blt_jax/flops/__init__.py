"""FLOP accounting: `per_byte(model_config, patch_size=, context_bytes=, convention=) ->
Breakdown`.
"""

from blt_jax.flops.analytic import Breakdown, executed_row, parameters, per_byte, training
from blt_jax.flops.causes import differences

__all__ = ["Breakdown", "differences", "executed_row", "parameters", "per_byte", "training"]
