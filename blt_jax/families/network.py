"""Pure functions of (params, batch, config): `init(key, config)` and `apply(params, batch,
config)`.
"""

from blt_jax.families.head import entropy, logits, losses
from blt_jax.families.initial import init, logical_axes, module, shapes
from blt_jax.nn.attention import backend_of
from blt_jax.nn.compute import PLAIN, Compute

__all__ = [
    "PLAIN",
    "Compute",
    "apply",
    "backend_of",
    "entropy",
    "init",
    "logical_axes",
    "logits",
    "losses",
    "module",
    "shapes",
]


def apply(params, batch, config, compute=PLAIN):
    """Next-unit logits [B, L, V], float32, of any model config."""
    return module(config, compute).apply({"params": params}, batch)
