"""A plain LM, one position at a time: token LM, flat byte LM, and the entropy model of a BLT."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from blt_jax.families import network
from blt_jax.nn import incremental
from blt_jax.nn.embedding import read
from blt_jax.nn.norm import RMSNorm
from blt_jax.nn.ring import Ring


class LmState(NamedTuple):
    step: jax.Array  # int32 scalar: steps since the prompts, the same for all rows
    position_B: jax.Array  # int32, of the next id
    document_B: jax.Array  # int32: where its document begins
    ring: Ring


def step(params, config, compute, state: LmState, ids_B, closes):
    """(logits [B, V] of the id after `ids_B`, state). `closes`: ids that end what attention may
    look back on.

    `params`: as from `layers.by_layer`.
    """
    stack = config.stack
    x_Bx1xD = read(params["embedding"], ids_B[None, :, None], compute)
    if stack.layers:
        states, ring = incremental.run(
            stack,
            compute,
            params["stack"]["layers"],
            x_Bx1xD,
            state.ring,
            state.step,
            state.position_B,
            state.document_B,
        )
        x_Bx1xD, state = states[-1], state._replace(ring=ring)
    x_Bx1xD = RMSNorm(stack.norm_eps).apply({"params": params["norm"]}, x_Bx1xD)
    logits_BxV = network.logits(params, x_Bx1xD, config, compute)[:, 0]
    after_B = state.position_B + 1
    return logits_BxV, state._replace(
        step=state.step + 1,
        position_B=after_B,
        document_B=jnp.where(is_one_of(ids_B, closes), after_B, state.document_B),
    )


def is_one_of(ids_B, closes):
    return jnp.isin(ids_B, jnp.array(closes, jnp.int32))
