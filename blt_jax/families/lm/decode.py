"""A plain LM, one position at a time: token LM, flat byte LM, and the entropy model of a BLT."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.families import Plan, Prompted, row_batch
from blt_jax.families.head import entropy, logits
from blt_jax.families.lm.config import Lm
from blt_jax.nn import incremental, ring
from blt_jax.nn.compute import Compute
from blt_jax.nn.embedding import read
from blt_jax.nn.norm import RMSNorm
from blt_jax.nn.ring import Ring


class LmState(NamedTuple):
    step: jax.Array  # int32 scalar: steps since the prompts, the same for all rows
    position_B: jax.Array  # int32, of the next id
    document_B: jax.Array  # int32: where its document begins
    ring: Ring


def prompt(params: Any, config: Lm, rows: list[np.ndarray], plan: Plan, room: int) -> Prompted:
    """`Model.prompt`."""
    size = ring.size_for(config.stack.window, max(map(len, rows)) + room)
    length_B = np.array([len(row) for row in rows], np.int32)
    batch = row_batch.segmented(rows, plan.closes)
    logits_BxV, entropy_BxL, kept = _pass(
        params, batch, length_B, config, plan.compute, size, plan.measures
    )
    document_B = jnp.array(row_batch.document_begins(rows, plan.closes))
    state = LmState(jnp.int32(0), jnp.array(length_B), document_B, kept)
    return Prompted(logits_BxV, state, entropy_BxL)


@functools.partial(jax.jit, static_argnames=("config", "compute", "size", "measures"))
def _pass(params, batch, length_B, config, compute, size, measures):
    x_BxLxD, variables = config.module(compute).apply(
        {"params": params}, batch, head=False, mutable=["kept"]
    )
    at_end = incremental.at(x_BxLxD, length_B - 1)
    logits_BxV = logits(params, at_end, config, compute)[:, 0]
    entropy_BxL = entropy(logits(params, x_BxLxD, config, compute)) if measures else None
    kvs = (
        incremental.scanned(variables["kept"]["stack"]["layers"]["kv"])
        if config.stack.layers
        else []
    )
    return logits_BxV, entropy_BxL, ring.filled(kvs, length_B, size)


def step(
    params: Any,
    config: Lm,
    compute: Compute,
    state: LmState,
    ids_B: jax.Array,
    closes: tuple[int, ...],
) -> tuple[jax.Array, LmState, jax.Array]:
    """`Model.step`."""
    stack = config.stack
    x_Bx1xD: Any = read(params["embedding"], ids_B[None, :, None], compute)
    if stack.layers:
        states, kept = incremental.run(
            stack,
            compute,
            params["stack"]["layers"],
            x_Bx1xD,
            state.ring,
            state.step,
            state.position_B,
            state.document_B,
        )
        x_Bx1xD, state = states[-1], state._replace(ring=kept)
    x_Bx1xD = RMSNorm(stack.norm_eps).apply({"params": params["norm"]}, x_Bx1xD)
    logits_BxV = logits(params, x_Bx1xD, config, compute)[:, 0]
    after_B = state.position_B + 1
    closed_B = jnp.isin(ids_B, jnp.array(closes, jnp.int32))
    state = state._replace(
        step=state.step + 1,
        position_B=after_B,
        document_B=jnp.where(closed_B, after_B, state.document_B),
    )
    return logits_BxV, state, jnp.zeros(ids_B.shape, bool)
