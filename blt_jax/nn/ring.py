"""Keys and values of the newest positions, for attention one position at a time.

A `Ring` has W slots, and the slot of a time step is its number modulo W, the same for all rows:
that writes in place, where a slot for each row would scatter. The position of a row says what
a slot holds for it, so that rows may have prompts of any lengths, and may leave steps out.
A prompt's end has step -1, its last W positions fill the ring. A slot is read where its position is
at least the oldest that a query may see.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from blt_jax.nn.blockwise import MASKED

KeysValues = tuple[jax.Array, jax.Array]


class Ring(NamedTuple):
    position_BxW: jax.Array  # int32, of what each slot holds; negative: nothing
    # of (k_BGxWxC, v_BGxWxC): rows and heads are one axis, or XLA would copy all of it at every
    # step
    layers: tuple[KeysValues, ...]

    @property
    def size(self) -> int:
        return self.position_BxW.shape[1]

    def slot(self, step: jax.Array) -> jax.Array:
        return step % self.size


def room_for(positions: int) -> int:
    """At least so many slots: one of four sizes between powers of two, so that few programs are
    compiled.
    """
    step = max(64, 1 << (positions.bit_length() - 3))
    return -(-positions // step) * step


def size_for(window: int, positions: int) -> int:
    """Slots for a stack that sees `window` positions (0: all) of at most so many."""
    return min(window, room_for(positions)) if window else room_for(positions)


def filled(kvs: Sequence[KeysValues], length_B: jax.Array, size: int) -> Ring:
    """The Ring of `size` after prompts of `length_B` positions. `kvs`: a pair (k, v) [B, L, G, C]
    for each layer.
    """
    position_BxW = length_B[:, None] - size + jnp.arange(size)

    def newest(x_BxLxGxC):
        index = jnp.clip(position_BxW, 0, x_BxLxGxC.shape[1] - 1)
        return _rows_and_heads(jnp.take_along_axis(x_BxLxGxC, index[..., None, None], axis=1))

    return Ring(position_BxW, tuple((newest(k), newest(v)) for k, v in kvs))


def mark(ring: Ring, position_B: jax.Array, step: jax.Array) -> jax.Array:
    """position_BxW with the positions that rows have at `step`."""
    return jax.lax.dynamic_update_slice_in_dim(
        ring.position_BxW, position_B[:, None], ring.slot(step), 1
    )


def write(kv: KeysValues, new: KeysValues, slot: jax.Array) -> KeysValues:
    """(k, v) [BG, W, C] with new ones [B, 1, G, C] in `slot`."""
    put = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, _rows_and_heads(y), slot, 1)
    return put(kv[0], new[0]), put(kv[1], new[1])


def newest(ring: Ring, step: jax.Array, count: int) -> Ring:
    """A Ring of the `count` newest steps of one, its newest being `step`."""
    slots = ring.slot(step - jnp.arange(count))
    cut = lambda x: jnp.take(x, slots, axis=1, mode="clip")
    return Ring(cut(ring.position_BxW), tuple((cut(k), cut(v)) for k, v in ring.layers))


def attend(
    q_Bx1xHxC: jax.Array, k_BGxWxC: jax.Array, v_BGxWxC: jax.Array, seen_BxW: jax.Array
) -> jax.Array:
    """As `attention.attend` for the one position of each row, over the slots that `seen_BxW`
    names.
    """
    B, _, H, C = q_Bx1xHxC.shape
    q_Bx1xGxRxC = q_Bx1xHxC.reshape(B, 1, k_BGxWxC.shape[0] // B, -1, C) * C**-0.5
    return read(q_Bx1xGxRxC, k_BGxWxC, v_BGxWxC, seen_BxW).reshape(B, 1, H, C)


def read(
    q_BxKxGxRxC: jax.Array, k_BGxWxC: jax.Array, v_BGxWxC: jax.Array, seen_BxW: jax.Array
) -> jax.Array:
    """Softmax of scaled queries over the slots that `seen_BxW` names; [B, K, G, R, C] in v's
    dtype.
    """
    B, K, G, R, C = q_BxKxGxRxC.shape
    q_BGxQxC = q_BxKxGxRxC.swapaxes(1, 2).reshape(B * G, K * R, C)
    scores = jnp.einsum("bqc,bwc->bqw", q_BGxQxC, k_BGxWxC, preferred_element_type=jnp.float32)
    seen_BGx1xW = jnp.repeat(seen_BxW, G, axis=0)[:, None]
    weights = jax.nn.softmax(jnp.where(seen_BGx1xW, scores, MASKED), axis=-1).astype(v_BGxWxC.dtype)
    out_BGxQxC = jnp.einsum("bqw,bwc->bqc", weights, v_BGxWxC)
    return out_BGxQxC.reshape(B, G, K, R, C).swapaxes(1, 2)


def _rows_and_heads(x_BxWxGxC):
    B, W, G, C = x_BxWxGxC.shape
    return x_BxWxGxC.swapaxes(1, 2).reshape(B * G, W, C)
