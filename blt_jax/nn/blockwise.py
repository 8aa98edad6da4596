"""Blockwise self-attention in plain XLA: softmax span by span, so that no score outlives its step.

Queries are cut into blocks; a static list names the spans of key blocks that causality and the
window let each of them meet: for windows up to SPAN - 1 blocks it is one span. One loop walks the
list with a running maximum and sum (online softmax, arXiv 1805.02867); the backward pass walks it
again and recomputes the scores (FlashAttention, arXiv 2205.14135). Memory is O(L x C), and a step's
scores stay in the cache of a CPU: that, not arithmetic, is what attention costs there. Full causal
attention does little more than half of the work of an L x L array. The loop is sequential:
accelerators want the parallel forms.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 128  # positions per block
SPAN = 5  # key blocks per step at most: a window of 512 in one step
MASKED = -1e30  # score of a pair that may not meet; finite, so that an empty row makes no NaN


def spans(blocks: int, block: int, window: int) -> tuple[int, np.ndarray]:
    """(key blocks per step, int32 [steps, 2]): each step's query block, and the last key block of
    its span.

    In query order; spans of one query block do not overlap, and the first ends at the query block
    itself.
    """
    most = min(-(-(window - 1) // block) + 1, blocks) if window else blocks
    span = -(-most // -(-most // SPAN))
    steps = [(i, last) for i in range(blocks) for last in range(i, max(i - most, -1), -span)]
    return span, np.array(steps, np.int32)


def attend(
    q_BxLxGxRxC: jax.Array,
    k_BxLxGxC: jax.Array,
    v_BxLxGxC: jax.Array,
    segment_BxL: jax.Array,
    window: int = 0,
) -> jax.Array:
    """As `attention.attend`, with scaled queries grouped by key head: [B, L, G, R, C] -> [B, L, G,
    R, C].
    """
    B, L, G, R, C = q_BxLxGxRxC.shape
    block = min(BLOCK, -(-L // 8) * 8)
    blocks = -(-L // block)
    span, steps = spans(blocks, block, window)
    tail, before = (
        blocks * block - L,
        (span - 1) * block,
    )  # spans of the first queries begin before the row

    def pad(x, front, fill=0):
        return jnp.pad(x, [(0, 0), (front, tail)] + [(0, 0)] * (x.ndim - 2), constant_values=fill)

    q = pad(q_BxLxGxRxC, 0).reshape(B, blocks, block, G, R, C).transpose(1, 0, 3, 5, 4, 2)
    q = q.reshape(blocks, B, G, C, R * block)
    k, v = (pad(x, before).transpose(0, 2, 3, 1) for x in (k_BxLxGxC, v_BxLxGxC))
    # Masks depend on segments and steps alone, which are the same for every layer: differentiating
    # a scan over layers would take all of them out of it, L^2 booleans at once. This ties them to
    # the queries.
    q, segment_BxS, steps = jax.lax.optimization_barrier(
        (q, pad(segment_BxL, before, fill=-1), jnp.asarray(steps))
    )
    out = _attend(q, k, v, segment_BxS, steps, (R, span, window))
    out = (
        out.reshape(blocks, B, G, R, block, C)
        .transpose(1, 0, 4, 2, 3, 5)
        .reshape(B, blocks * block, G, R, C)
    )
    return out[:, :L]


def _at(x, start, size, axis):
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _scores(q, k, segment_BxS, i, last, shape):
    """Masked float32 scores [B, G, R x Q, S] of query block `i` and the span of keys that ends with
    block `last`.
    """
    R, span, window = shape
    block = q.shape[-1] // R
    scores = jnp.einsum("bgcq,bgcs->bgqs", q, k, preferred_element_type=jnp.float32)
    behind_QxS = (
        (i - last + span - 1) * block + jnp.arange(block)[:, None] - jnp.arange(span * block)
    )
    q_segment = _at(segment_BxS, (i + span - 1) * block, block, 1)
    k_segment = _at(segment_BxS, last * block, span * block, 1)
    mask = (behind_QxS >= 0) & (q_segment[:, :, None] == k_segment[:, None, :])
    if window:
        mask &= behind_QxS < window
    return jnp.where(jnp.tile(mask, (1, R, 1))[:, None], scores, MASKED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q, k, v, segment_BxS, steps, shape):
    """q [N, B, G, R x Q, C]; k, v [B, G, S, C] and segment [B, S] with their fore part -> [N, B, G,
    R x Q, C].
    """
    return _forward(q, k, v, segment_BxS, steps, shape)[0]


def _forward(q, k, v, segment_BxS, steps, shape):
    R, span, _ = shape
    block = q.shape[-1] // R
    put = jax.lax.dynamic_update_index_in_dim

    def step(carry, at):
        out, norm, top, total, mean = carry
        i, last = at
        k_span, v_span = (_at(x, last * block, span * block, 3) for x in (k, v))
        scores = _scores(q[i], k_span, segment_BxS, i, last, shape)
        fresh = i == last
        before = jnp.where(fresh, MASKED, top)
        top = jnp.maximum(before, scores.max(-1))
        weights = jnp.exp(scores - top[..., None])
        kept = jnp.where(fresh, 0.0, jnp.exp(before - top))
        total = total * kept + weights.sum(-1)
        new = jnp.einsum(
            "bgqs,bgcs->bgqc", weights.astype(v.dtype), v_span, preferred_element_type=jnp.float32
        )
        mean = mean * kept[..., None] + new
        out = put(out, (mean / total[..., None]).astype(out.dtype), i, 0)
        norm = put(norm, top + jnp.log(total), i, 0)
        return (out, norm, top, total, mean), None

    N, B, G, C, Q = q.shape
    out, norm = jnp.zeros((N, B, G, Q, C), q.dtype), jnp.zeros((N, B, G, Q), jnp.float32)
    start = (out, norm, norm[0], norm[0], out[0].astype(jnp.float32))
    (out, norm, *_), _ = jax.lax.scan(step, start, (steps[:, 0], steps[:, 1]))
    return out, (q, k, v, segment_BxS, steps, out, norm)


def _backward(shape, kept, d_out):
    q, k, v, segment_BxS, steps, out, norm = kept
    R, span, _ = shape
    block = q.shape[-1] // R
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    d_out = d_out.swapaxes(3, 4)

    def add(total, x, start, axis):
        """total[start : start + x's size] += x, in place inside a loop."""
        return jax.lax.dynamic_update_slice_in_dim(
            total, _at(total, start, x.shape[axis], axis) + x, start, axis
        )

    def step(carry, at):
        dq, dk, dv = carry
        i, last = at
        k_span, v_span = (_at(x, last * block, span * block, 3) for x in (k, v))
        weights = jnp.exp(_scores(q[i], k_span, segment_BxS, i, last, shape) - norm[i][..., None])
        d_weights = jnp.einsum(
            "bgcq,bgcs->bgqs", d_out[i], v_span, preferred_element_type=jnp.float32
        )
        d_scores = (weights * (d_weights - delta[i][..., None])).astype(q.dtype)
        of_v = jnp.einsum(
            "bgcq,bgqs->bgcs", d_out[i], weights.astype(v.dtype), preferred_element_type=jnp.float32
        )
        of_q = jnp.einsum("bgqs,bgcs->bgqc", d_scores, k_span, preferred_element_type=jnp.float32)
        of_k = jnp.einsum("bgcq,bgqs->bgcs", q[i], d_scores, preferred_element_type=jnp.float32)
        return (
            add(dq, of_q[None], i, 0),
            add(dk, of_k, last * block, 3),
            add(dv, of_v, last * block, 3),
        ), None

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (out, k, v))
    (dq, dk, dv), _ = jax.lax.scan(step, start, (steps[:, 0], steps[:, 1]))
    return dq.swapaxes(3, 4).astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)
