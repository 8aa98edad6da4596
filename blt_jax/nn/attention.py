"""Causal self-attention within documents: one entry point, exact with every backend.

A window makes it local: cost and memory are O(L x window), never O(L x L). Scores and softmax are
float32. The backend is chosen once per program, from the platform that it is compiled for
(`backend_of`); none of them falls back on another.

- "blockwise" (CPU): a loop over pairs of blocks that keeps scores in the cache (`blockwise.py`).
- "banded" (GPU): every block of queries against the key blocks that its window reaches, all at
  once; without a window every query against every key.
- "splash" (TPU): the Pallas kernel that ships with jax (`splash.py`): windows and segments, no
  score in memory.
"""

import jax
import jax.numpy as jnp

from blt_jax.config import ATTENTION, ConfigError
from blt_jax.nn import blockwise

# queries per block of the banded form: a block of b queries reads window - 1 + b keys, rounded up
BLOCK = 128


def backend_of(platform: str) -> str:
    """The backend for a jax platform name. Raises ConfigError for one that we do not know."""
    known = {
        "cpu": "blockwise",
        "gpu": "banded",
        "cuda": "banded",
        "rocm": "banded",
        "tpu": "splash",
    }
    if platform not in known:
        raise ConfigError(
            f"no attention backend for platform {platform!r}; set train.attention to one of "
            f"{ATTENTION}"
        )
    return known[platform]


def attend(
    q_BxLxHxC: jax.Array,
    k_BxLxGxC: jax.Array,
    v_BxLxGxC: jax.Array,
    segment_BxL: jax.Array,
    window: int = 0,
    backend: str = "blockwise",
) -> jax.Array:
    """Each query attends to itself and earlier positions of its segment, at most `window` of them
    (0: all).

    H must be a multiple of G (grouped queries). Returns [B, L, H, C] in q's dtype.
    """
    B, L, H, C = q_BxLxHxC.shape
    window = 0 if window >= L else window
    q_BxLxGxRxC = q_BxLxHxC.reshape(B, L, k_BxLxGxC.shape[2], -1, C) * C**-0.5
    form = {"blockwise": blockwise.attend, "banded": _parallel, "splash": _splash}[backend]
    return form(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, window).reshape(B, L, H, C)


def _splash(*args):
    from blt_jax.nn import splash  # Pallas, which takes long to import, for a TPU

    return splash.attend(*args)


def _parallel(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, window):
    if window:
        return _banded(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, window)
    L = segment_BxL.shape[1]
    return _attend(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, segment_BxL, 0, L)


def _attend(q, k, v, q_segment, k_segment, offset, window):
    """Softmax over keys j of query i with i + offset - window < j <= i + offset, in the same
    segment.

    Leading axes are batch: q [..., Q, G, R, C], k and v [..., S, G, C], segments [..., Q] and [...,
    S].
    """
    scores = jnp.einsum("...qgrc,...sgc->...grqs", q, k, preferred_element_type=jnp.float32)
    behind_QxS = jnp.arange(q.shape[-4])[:, None] + offset - jnp.arange(k.shape[-3])
    mask = (
        (behind_QxS >= 0)
        & (behind_QxS < window)
        & (q_segment[..., :, None] == k_segment[..., None, :])
    )
    scores = jnp.where(mask[..., None, None, :, :], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("...grqs,...sgc->...qgrc", weights, v)


def _banded(q_BxLxGxRxC, k_BxLxGxC, v_BxLxGxC, segment_BxL, window):
    L = q_BxLxGxRxC.shape[1]
    block = min(BLOCK, window)
    blocks, back = -(-L // block), -(-(window - 1) // block)

    def cut(x, fill=0):
        """[B, L, ...] -> [B, blocks, block, ...], the end padded."""
        padded = jnp.pad(
            x, [(0, 0), (0, blocks * block - L)] + [(0, 0)] * (x.ndim - 2), constant_values=fill
        )
        return padded.reshape(x.shape[0], blocks, block, *x.shape[2:])

    def reach(x_BxNxSx, fill=0):
        """Each block with the `back` blocks before it, along the key axis."""
        padded = jnp.pad(
            x_BxNxSx, [(0, 0), (back, 0)] + [(0, 0)] * (x_BxNxSx.ndim - 2), constant_values=fill
        )
        return jnp.concatenate([padded[:, i : i + blocks] for i in range(back + 1)], axis=2)

    segment = cut(segment_BxL, fill=-1)
    out = _attend(
        cut(q_BxLxGxRxC),
        reach(cut(k_BxLxGxC)),
        reach(cut(v_BxLxGxC)),
        segment,
        reach(segment, fill=-2),
        back * block,
        window,
    )
    return out.reshape(out.shape[0], blocks * block, *out.shape[3:])[:, :L]
