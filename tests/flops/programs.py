"""The programs that FLOPs are counted of: a forward pass and a loss with its gradient, by shapes
alone.
"""

import functools

import jax
import jax.numpy as jnp

from blt_jax.families import network
from blt_jax.families.blt.config import Blt

B = 2  # rows of every batch


@functools.cache
def _parameters(model):
    return network.shapes(model)


def shapes(model, positions, slots):
    """Parameters and a batch of B rows, as jax.ShapeDtypeStruct: no array is made, whatever the
    size.
    """
    ints = lambda n: jax.ShapeDtypeStruct((B, n), jnp.int32)
    keys = ["ids_BxL", "segment_BxL"] + ["patch_BxL", "read_BxL"] * isinstance(model, Blt)
    batch = {key: ints(positions) for key in keys}
    if isinstance(model, Blt):
        batch["patch_segment_BxP"] = ints(slots)
    return _parameters(model), batch


def forward(model, **compute):
    return jax.jit(
        lambda params, batch: network.apply(params, batch, model, network.Compute(**compute))
    )


def with_gradient(model, **compute):
    def loss(params, batch):
        targets = batch | {"targets_BxL": batch["ids_BxL"]}
        return network.losses(params, targets, model, network.Compute(**compute)).mean()

    return jax.jit(jax.value_and_grad(loss))
