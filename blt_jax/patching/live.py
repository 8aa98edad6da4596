"""Where patches start, one id at a time: the rules of `rules.py` with what they remember as a
value.

For use inside a compiled loop: after each id, and its entropy, `step` decides whether the next id
begins a patch.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.config import BYTE_OFFSET, DELIMITER
from blt_jax.patching import Patching, rules


class Live(NamedTuple):
    """What a rule remembers of each row of ids."""

    count_B: jax.Array  # int32: ids so far
    entropy_B: jax.Array  # float32: after the last of them
    like_B: jax.Array  # bool: the last of them is space-like
    begin_B: (
        jax.Array
    )  # int32: where the rule last set a start, apart from those that max_length adds


def after(rows, entropies, patching: Patching):
    """Live of whole rows: lists of ids [N] and of their entropies [N], None where the rule uses
    none.
    """
    uncut = dataclasses.replace(patching, max_length=0)
    own = [
        rules.starts(row, one, uncut, include_next=True)
        for row, one in zip(rows, entropies, strict=True)
    ]
    return Live(
        jnp.array([len(row) for row in rows], jnp.int32),
        jnp.array([0.0 if one is None else one[-1] for one in entropies], jnp.float32),
        jnp.array([rules.SPACE_LIKE[row[-1]] for row in rows]),
        jnp.array([np.flatnonzero(one)[-1] for one in own], jnp.int32),
    )


def step(live: Live, ids_B, entropy_B, patching: Patching):
    """(Live with one more id, bool [B]: whether the id after it begins a patch).

    `entropy_B`: float32, of the distribution after that id, rounded as training rounds it.
    """
    n = live.count_B + 1  # the position that is decided
    like_B = jnp.asarray(rules.SPACE_LIKE)[ids_B]
    rise_B = entropy_B - live.entropy_B
    high_B = entropy_B > np.float32(patching.threshold)
    decide = {
        "entropy": lambda: high_B,
        "relative": lambda: (n == 2) | (rise_B > np.float32(patching.threshold)),
        "combined": lambda: (
            (n == 2) | (n > 3) & high_B & (rise_B > np.float32(patching.threshold_add))
        ),
        "space": lambda: like_B & ~live.like_B | (ids_B < BYTE_OFFSET),
        "strided": lambda: n % patching.stride == 0,
        "byte": lambda: n > 0,
        "bpe": lambda: ids_B == DELIMITER,
    }
    start_B = (n == 1) | decide[patching.rule]()
    begin_B = jnp.where(start_B, n, live.begin_B)
    if patching.max_length:
        start_B = (n - begin_B) % patching.max_length == 0
    return Live(n, entropy_B, like_B, begin_B), start_B


def as_float16(x):
    """float32 rounded once to float16, as a store keeps entropies; a plain cast there and back XLA
    may leave out.
    """
    small = (
        jnp.round(x * 2.0**24) * 2.0**-24
    )  # float16's subnormal numbers, which `reduce_precision` has not
    return jnp.where(
        jnp.abs(x) < 2.0**-14, small, jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
    )
