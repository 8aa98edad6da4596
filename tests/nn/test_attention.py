"""Banded and grouped attention against a dense reference; cross-attention against dense masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from blt_jax.nn import attention
from blt_jax.nn.attention import attend
from blt_jax.nn.cross_attention import ByteReadsPatch, PatchReadsBytes, Segments

TOLERANCE = 2e-5  # float32, sums of at most 300 terms


def dense(q, k, v, segment, window):
    B, L, H, C = q.shape
    k, v = (np.repeat(x, H // k.shape[2], axis=2) for x in (k, v))
    scores = np.einsum("bqhc,bshc->bhqs", q, k) / np.sqrt(C)
    behind = np.arange(L)[:, None] - np.arange(L)
    mask = (
        (behind >= 0)
        & (behind < (window or L))
        & (segment[:, :, None] == segment[:, None])[:, None]
    )
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqs,bshc->bqhc", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
    "length, window", [(50, 0), (50, 7), (300, 130), (300, 128), (257, 1), (40, 512)]
)
def test_attend_equals_dense(length, window):
    rng = np.random.default_rng(length + window)
    q = rng.normal(size=(2, length, 4, 6)).astype(np.float32)
    k, v = (rng.normal(size=(2, length, 2, 6)).astype(np.float32) for _ in range(2))
    segment = np.sort(rng.integers(1, 4, (2, length)), axis=1)
    np.testing.assert_allclose(
        attend(q, k, v, segment, window), dense(q, k, v, segment, window), atol=TOLERANCE
    )


def test_banded_attention_has_no_square_array():
    shape = jax.ShapeDtypeStruct((1, 4096, 2, 8), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda q, k, v, s: attend(q, k, v, s, 128))(
        shape, shape, shape, jax.ShapeDtypeStruct((1, 4096), jnp.int32)
    )
    largest = max(np.prod(v.aval.shape) for e in jaxpr.eqns for v in e.outvars)
    assert (
        largest <= 4096 * 2 * 8 * attention.BLOCK
    )  # O(L x window); the square would be 4096^2 x heads


def cross_case(seed, L=40, P=12, K=2, E=16):
    """Rows of random patches, an empty slot and padding at the end."""
    rng = np.random.default_rng(seed)
    patch = np.sort(rng.integers(0, P - 2, (2, L)), axis=1)
    patch = np.stack([np.unique(row, return_inverse=True)[1] for row in patch])
    patch[:, -3:] = P  # padding
    h = rng.normal(size=(2, L, E)).astype(np.float32)
    slots = rng.normal(size=(2, P, K, E)).astype(np.float32)
    return patch, h, slots


def dense_cross(params, queries, context, mask, heads):
    """[B, Q, E] queries over [B, S, E] context, boolean mask [B, Q, S]; a query without keys gets
    zeros.
    """
    p = params["params"]
    norm = lambda x, scale: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * scale
    project = lambda name, x: np.einsum("bse,ehc->bshc", x, p[name]["kernel"])
    normed = norm(context, p["context_norm"]["scale"])
    q = project("q", norm(queries, p["query_norm"]["scale"])) / np.sqrt(queries.shape[-1] // heads)
    k, v = (
        np.repeat(project(name, normed), heads // p[name]["kernel"].shape[1], axis=2)
        for name in "kv"
    )
    weights = np.exp(np.einsum("bqhc,bshc->bhqs", q, k)) * mask[:, None]
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    merged = np.einsum("bhqs,bshc->bqhc", weights, v)
    return 2 * queries + np.einsum("bqhc,hce->bqe", merged, p["o"]["kernel"])


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_patches_read_their_own_bytes(kv_heads):
    patch, h, slots = cross_case(0)
    module = PatchReadsBytes(16, 4, kv_heads, "double", 1e-5)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(0), slots, h, patch))
    B, P, K, E = slots.shape
    mask = np.repeat(patch[:, None] == np.arange(P)[:, None], K, axis=1)
    expected = dense_cross(params, slots.reshape(B, P * K, E), h, mask, 4).reshape(slots.shape)
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, slots, h, patch), expected, atol=TOLERANCE
    )
    total = lambda p, h: module.apply(p, slots, h, patch).sum()
    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))(params, h)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_bytes_read_one_patch(kv_heads):
    patch, h, slots = cross_case(1)
    read = np.minimum(patch, slots.shape[1] - 1)
    module = ByteReadsPatch(16, 4, kv_heads, "double", 1e-5)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(0), h, slots, read))
    B, P, K, E = slots.shape
    mask = np.repeat(read[:, :, None] == np.arange(P), K, axis=2)
    expected = dense_cross(params, h, slots.reshape(B, P * K, E), mask, 4)
    np.testing.assert_allclose(
        jax.jit(module.apply)(params, h, slots, read), expected, atol=TOLERANCE
    )


def test_max_pooling_ignores_padding_and_empties_to_zero():
    patch = np.array([[0, 0, 2, 4, 4]])  # slot 1 empty, slots 4 = padding of P = 4
    pooled = Segments(patch, 4).max(jnp.array([[[-3.0], [-1.0], [-5.0], [9.0], [9.0]]]))
    assert pooled[0, :, 0].tolist() == [-1.0, 0.0, -5.0, 0.0]
