"""Splash attention, the Pallas TPU kernel that ships with jax: window and segments, forward and
backward.

A kernel is opaque to the partitioner, so under a mesh each device runs it on its own rows and heads
inside `jax.shard_map` (`nn/constraints.py`).
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from blt_jax.nn.constraints import spec

LANES = 128  # the kernel's tile: lengths are padded to it
BLOCK = 512  # positions per block, where the length allows


def attend(
    q_BxLxGxRxC: jax.Array,
    k_BxLxGxC: jax.Array,
    v_BxLxGxC: jax.Array,
    segment_BxL: jax.Array,
    window: int = 0,
    interpret: bool = False,
) -> jax.Array:
    """As `attention.attend`, with scaled queries grouped by key head: [B, L, G, R, C] -> [B, L, G,
    R, C].
    """
    L, R = q_BxLxGxRxC.shape[1], q_BxLxGxRxC.shape[3]
    padded = -(-L // LANES) * LANES
    pad = lambda x, fill=0: jnp.pad(
        x, [(0, 0), (0, padded - L)] + [(0, 0)] * (x.ndim - 2), constant_values=fill
    )
    q = pad(q_BxLxGxRxC).transpose(0, 2, 3, 1, 4)
    k, v = (pad(x).transpose(0, 2, 1, 3) for x in (k_BxLxGxC, v_BxLxGxC))
    segment = pad(segment_BxL, -1)
    run = functools.partial(_rows, R=R, window=window, interpret=interpret)
    if not jax.sharding.get_abstract_mesh().empty:
        names = ("batch", "kv_heads", None, None, None)
        heads, keys = spec(names, q.shape), spec(names[:4], k.shape)
        specs = (heads, keys, keys, spec(("batch", None), segment.shape))
        run = jax.shard_map(run, in_specs=specs, out_specs=heads, check_vma=False)
    out = run(q, k, v, segment)
    return out.transpose(0, 3, 1, 2, 4)[:, :L]


def _rows(q_BxGxRxLxC, k_BxGxLxC, v_BxGxLxC, segment_BxL, *, R, window, interpret):
    L = segment_BxL.shape[1]
    mask = masks.LocalMask((L, L), (window - 1, 0), 0) if window else masks.CausalMask((L, L))
    block = next(b for b in (BLOCK, 256, LANES) if L % b == 0)
    queries, keys = (
        ("q", "q_dkv", "q_dq"),
        ("kv", "kv_compute", "kv_dkv", "kv_dkv_compute", "kv_dq"),
    )
    sizes = kernel.BlockSizes(**{f"block_{name}": block for name in (*queries, *keys)})
    attention = kernel.make_splash_mqa_single_device(
        masks.MultiHeadMask([mask] * R), block_sizes=sizes, interpret=interpret
    )
    per_row = lambda q, k, v, s: jax.vmap(attention, (0, 0, 0, None))(
        q, k, v, kernel.SegmentIds(s, s)
    )
    return jax.vmap(per_row)(q_BxGxRxLxC, k_BxGxLxC, v_BxGxLxC, segment_BxL).astype(
        q_BxGxRxLxC.dtype
    )
