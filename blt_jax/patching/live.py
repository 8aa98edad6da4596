"""Where patches start, one id at a time: what all rules share of generation.

For use inside a compiled loop: after each id, and its entropy, `step` decides whether the next id
begins a patch, as `starts` does for whole documents. What a rule remembers of the past is a value.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.patching import Patching, row_starts


class Live(NamedTuple):
    """What is remembered of each row of ids."""

    count_B: jax.Array  # int32: ids so far
    begin_B: jax.Array  # int32: the newest start, apart from those that max_length adds
    memory: Any  # of the rule: see `Rule.remember`


def after(rows: Sequence[np.ndarray], entropies: Sequence[Any], patching: Patching) -> Live:
    """Live of whole rows: of each its ids [N] and its entropies, float32 [N], None where the rule
    reads none.
    """
    rule, uncut = patching.implementation, dataclasses.replace(patching, max_length=0)
    begins, memories = [], []
    for ids, measured in zip(rows, entropies, strict=True):
        starts_N = row_starts.starts(ids, measured, uncut, include_next=True)
        begins.append(np.flatnonzero(starts_N)[-1])
        memories.append(rule.remember(ids, measured, patching))
    counts = [len(ids) for ids in rows]
    stack = lambda *parts: jnp.array(np.stack(parts))
    return Live(
        jnp.array(counts, jnp.int32),
        jnp.array(begins, jnp.int32),
        jax.tree.map(stack, *memories),
    )


def step(
    live: Live, ids_B: jax.Array, entropy_B: jax.Array, patching: Patching
) -> tuple[Live, jax.Array]:
    """(Live with one more id, bool [B]: whether the id after it begins a patch).

    `entropy_B`: float32, of the distribution after that id, rounded as training rounds it.
    """
    position_B = live.count_B + 1  # that is decided
    rule = patching.implementation
    memory, own_B = rule.step(live.memory, position_B, ids_B, entropy_B, patching)
    start_B = (position_B == 1) | own_B
    begin_B = jnp.where(start_B, position_B, live.begin_B)
    if patching.max_length:
        start_B = (position_B - begin_B) % patching.max_length == 0
    return Live(position_B, begin_B, memory), start_B


def as_float16(x: jax.Array) -> jax.Array:
    """float32 rounded once to float16, as a store keeps entropies; a plain cast there and back XLA
    may leave out.
    """
    # float16's subnormal numbers, which `reduce_precision` has not
    small = jnp.round(x * 2.0**24) * 2.0**-24
    rounded = jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
    return jnp.where(jnp.abs(x) < 2.0**-14, small, rounded)
