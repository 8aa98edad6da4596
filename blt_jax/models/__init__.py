"""Pure functions of (params, batch, config): `init(key, config)` and `apply(params, batch, config)`."""

import jax.numpy as jnp

from blt_jax.models.init import init, logical_axes, module, shapes

__all__ = ["apply", "init", "logical_axes", "module", "shapes"]


def apply(params, batch, config, *, dtype=jnp.float32, remat="none"):
    """Next-unit logits [B, L, V], float32, of any model config. `dtype` is that of compute."""
    return module(config, dtype, remat).apply({"params": params}, batch)
