"""How a model is computed, apart from what it is: no field here changes a result beyond
rounding.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Compute:
    """Given to every module as a static argument; the config of a model never holds it."""

    dtype: jnp.dtype = jnp.float32  # of activations and matrix products; parameters stay float32
    remat: str = "none"  # "none" | "full": recompute each layer in the backward pass
    attention: str = "blockwise"  # backend of self-attention, one of `config.ATTENTION`
    # (lookup, table, ids, dtype): how split embedding tables are read; None: whole ones
    lookup: Callable | None = None


PLAIN = Compute()
