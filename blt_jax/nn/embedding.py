"""Rows of embedding tables, summed: how bytes, tokens and hashed n-grams are looked up.

Tables lie by columns over all devices (`parallel/sharding.py`, "columns"), and `Compute.lookup`
reads them so.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from blt_jax.nn.block import init_normal
from blt_jax.nn.compute import Compute


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def lookup(table_RxE: jax.Array, ids_TxBxL: jax.Array, dtype: DTypeLike) -> jax.Array:
    """The sum of T rows for each byte: [B, L, E]. An id of R adds nothing.

    Autodiff would make T gradients of the whole table and add them up; here T scatters go into one.
    """
    total: Any = sum(
        jnp.take(table_RxE, ids, axis=0, mode="fill", fill_value=0).astype(dtype)
        for ids in ids_TxBxL
    )
    return total


def _lookup(table_RxE, ids_TxBxL, dtype):
    return lookup(table_RxE, ids_TxBxL, dtype), (table_RxE, ids_TxBxL)


def _lookup_gradient(dtype, kept, d_BxLxE):
    table_RxE, ids_TxBxL = kept
    gradient, d_BxLxE = jnp.zeros_like(table_RxE), d_BxLxE.astype(table_RxE.dtype)
    for ids in ids_TxBxL:
        gradient = gradient.at[ids].add(d_BxLxE, mode="drop")
    return gradient, None


lookup.defvjp(_lookup, _lookup_gradient)


def read(table_RxE: jax.Array, ids_TxBxL: jax.Array, compute: Compute) -> jax.Array:
    """`lookup` in compute's dtype, by the way that compute has of reading tables that are split."""
    plain = lookup if compute.lookup is None else functools.partial(compute.lookup, lookup)
    return plain(table_RxE, ids_TxBxL, compute.dtype)


def table(module: nn.Module, vocab: int, width: int) -> jax.Array:
    """The parameter `embedding` [V, E] of a module."""
    init = nn.with_logical_partitioning(init_normal(width**-0.5), ("vocab_rows", "columns"))
    embedding: Any = module.param("embedding", init, (vocab, width))
    return embedding
