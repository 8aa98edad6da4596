"""FLOP accounting: `per_byte(model_config, patch_size=, context_bytes=, convention=) -> Breakdown`."""

from blt_jax.flops.analytic import Breakdown, differences, executed_row, parameters, per_byte, training

__all__ = ["Breakdown", "differences", "executed_row", "parameters", "per_byte", "training"]
