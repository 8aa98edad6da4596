"""Stacks of blocks, one position at a time."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from blt_jax.config import Stack
from blt_jax.nn import ring
from blt_jax.nn.block import Block
from blt_jax.nn.compute import Compute
from blt_jax.nn.ring import KeysValues, Ring


def by_layer(params: Any) -> Any:
    """A parameter tree in which "layers", stacked for a scan, is a tuple of trees: the loop then
    slices nothing.
    """
    if not isinstance(params, dict):
        return params
    return {
        key: _split(tree) if key == "layers" else by_layer(tree) for key, tree in params.items()
    }


def _split(tree):
    count = len(jax.tree.leaves(tree)[0])
    return tuple(jax.tree.map(operator.itemgetter(i), tree) for i in range(count))


def scanned(kv: KeysValues) -> list[KeysValues]:
    """Keys and values of each layer, [B, L, G, C], from those that a scan kept, [N, B, L, G, C]."""
    return list(zip(*kv, strict=True))


def at(x_BxLxD: jax.Array, position_B: jax.Array) -> jax.Array:
    """The states [B, 1, D] at one position of each row."""
    return jnp.take_along_axis(x_BxLxD, position_B[:, None, None], axis=1)


def run(
    stack: Stack,
    compute: Compute,
    trees: Sequence[Any],
    x_Bx1xD: jax.Array,
    kept: Ring,
    step: jax.Array,
    position_B: jax.Array,
    oldest_B: jax.Array,
    before: Callable[[int, jax.Array], jax.Array] = lambda layer, x: x,
) -> tuple[list[jax.Array], Ring]:
    """(states [B, 1, D] after each layer, Ring) of one more position.

    `trees`: parameters of each Block. `position_B`: of the row; negative: the ring forgets this
    step for that row. `oldest_B`: first position of the document. `before(layer, x)`: what happens
    to a layer's input.
    """
    if stack.window:
        oldest_B = jnp.maximum(oldest_B, position_B - stack.window + 1)
    position_BxW = ring.mark(kept, position_B, step)
    seen_BxW = position_BxW >= oldest_B[:, None]
    block, slot, states, kvs = Block(stack, compute), kept.slot(step), [], []
    for layer, (tree, kv) in enumerate(zip(trees, kept.layers, strict=True)):
        x_Bx1xD = before(layer, x_Bx1xD)
        stepped: Any = block.apply(
            {"params": tree}, x_Bx1xD, position_B, kv, slot, seen_BxW, method="step"
        )
        x_Bx1xD, new = stepped
        states.append(x_Bx1xD)
        kvs.append(new)
    return states, Ring(position_BxW, tuple(kvs))
