"""Blockwise self-attention in plain XLA: softmax block by block, so that no score outlives its block.

Queries and keys are cut into blocks; a static list names the pairs of blocks that causality and the window let
meet. One loop walks the list with a running maximum and sum (online softmax, arXiv 1805.02867); the backward pass
walks it again and recomputes the scores (FlashAttention, arXiv 2205.14135). Memory is O(L x C) but for masks, and a
block's scores stay in the cache of a CPU: that, not arithmetic, is what attention costs there. Full causal
attention does half of the work of an L x L array. The loop is sequential: accelerators want the parallel
forms.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 128  # positions per block
MASKED = -1e30  # score of a pair that may not meet; finite, so that an empty row makes no NaN


def pairs(blocks, block, window):
    """int32 [pairs, 2]: (query block, key block) that hold at least one allowed pair, in query order."""
    back = -(-(window - 1) // block) if window else blocks
    return np.array([(i, j) for i in range(blocks) for j in range(max(0, i - back), i + 1)], np.int32)


def attend(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, window=0):
    """As `attention.attend`, with scaled queries grouped by key head: [B, L, G, R, C] -> [B, L, G, R, C]."""
    B, L, G, R, C = q_BxLxGxRxC.shape
    block = min(BLOCK, -(-L // 8) * 8)
    blocks = -(-L // block)

    def cut(x, fill=0):
        """[B, L, ...] -> [B, N, block, ...], the end padded."""
        padded = jnp.pad(x, [(0, 0), (0, blocks * block - L)] + [(0, 0)] * (x.ndim - 2), constant_values=fill)
        return padded.reshape(B, blocks, block, *x.shape[2:])

    q = cut(q_BxLxGxRxC).transpose(1, 0, 3, 4, 2, 5).reshape(blocks, B, G, R * block, C)
    k, v = (cut(x).transpose(1, 0, 3, 2, 4) for x in (k_BxLxGxC, v_BxLxGxC))
    segment = cut(segment_BxL, fill=-1).transpose(1, 0, 2)
    # Masks depend on segments alone, which are the same for every layer: differentiating a scan over layers takes
    # them out of it, all pairs at once. This tie keeps at least the copies for every head inside; without a window
    # one boolean per pair of positions is still kept.
    q, segment = jax.lax.optimization_barrier((q, segment))
    out = _attend(q, k, v, segment, (R, window))
    out = out.reshape(blocks, B, G, R, block, C).transpose(1, 0, 4, 2, 3, 5).reshape(B, blocks * block, G, R, C)
    return out[:, :L]


def _scores(q, k, q_segment, k_segment, pair, shape):
    """Masked float32 scores [B, G, R x Q, S] of one pair of blocks."""
    R, window = shape
    block = k.shape[-2]
    scores = jnp.einsum("bgqc,bgsc->bgqs", q, k, preferred_element_type=jnp.float32)
    behind_QxS = (pair[0] - pair[1]) * block + jnp.arange(block)[:, None] - jnp.arange(block)
    mask = (behind_QxS >= 0) & (q_segment[:, :, None] == k_segment[:, None, :])
    if window:
        mask &= behind_QxS < window
    return jnp.where(jnp.tile(mask, (1, R, 1))[:, None], scores, MASKED)


def _add(total, i, x):
    """total[i] += x, in place inside a loop."""
    return jax.lax.dynamic_update_index_in_dim(total, total[i] + x, i, 0)


def _put(total, i, x):
    return jax.lax.dynamic_update_index_in_dim(total, x, i, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, segment, shape):
    """q [N, B, G, R x Q, C], k and v [N, B, G, S, C], segment [N, B, S] -> [N, B, G, R x Q, C]."""
    return _forward(q, k, v, segment, shape)[0]


def _forward(q, k, v, segment, shape):
    steps = pairs(len(k), k.shape[-2], shape[1])
    first = np.append(True, np.diff(steps[:, 0]) > 0)

    def step(carry, at):
        out, norm, top, total, mean = carry
        pair, fresh = at
        i, j = pair
        scores = _scores(q[i], k[j], segment[i], segment[j], pair, shape)
        before = jnp.where(fresh, MASKED, top)
        top = jnp.maximum(before, scores.max(-1))
        weights = jnp.exp(scores - top[..., None])
        kept = jnp.where(fresh, 0.0, jnp.exp(before - top))
        total = total * kept + weights.sum(-1)
        new = jnp.einsum("bgqs,bgsc->bgqc", weights.astype(v.dtype), v[j], preferred_element_type=jnp.float32)
        mean = mean * kept[..., None] + new
        out = _put(out, i, (mean / total[..., None]).astype(out.dtype))
        norm = _put(norm, i, top + jnp.log(total))
        return (out, norm, top, total, mean), None

    flat = jnp.zeros(q.shape[1:-1], jnp.float32)
    start = (jnp.zeros_like(q), jnp.zeros(q.shape[:-1], jnp.float32), flat, flat, jnp.zeros(q.shape[1:], jnp.float32))
    (out, norm, *_), _ = jax.lax.scan(step, start, (steps, first))
    return out, (q, k, v, segment, out, norm)


def _backward(shape, kept, d_out):
    q, k, v, segment, out, norm = kept
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)

    def step(carry, pair):
        dq, dk, dv = carry
        i, j = pair
        weights = jnp.exp(_scores(q[i], k[j], segment[i], segment[j], pair, shape) - norm[i][..., None])
        low = weights.astype(v.dtype)
        d_weights = jnp.einsum("bgqc,bgsc->bgqs", d_out[i], v[j], preferred_element_type=jnp.float32)
        d_scores = (weights * (d_weights - delta[i][..., None])).astype(q.dtype)
        dv = _add(dv, j, jnp.einsum("bgqs,bgqc->bgsc", low, d_out[i], preferred_element_type=jnp.float32))
        dq = _add(dq, i, jnp.einsum("bgqs,bgsc->bgqc", d_scores, k[j], preferred_element_type=jnp.float32))
        dk = _add(dk, j, jnp.einsum("bgqs,bgqc->bgsc", d_scores, q[i], preferred_element_type=jnp.float32))
        return (dq, dk, dv), None

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    gradients, _ = jax.lax.scan(step, start, pairs(len(k), k.shape[-2], shape[1]))
    return *(g.astype(x.dtype) for g, x in zip(gradients, (q, k, v), strict=True)), None


_attend.defvjp(_forward, _backward)
