"""Rotary position embedding over interleaved pairs (2i, 2i+1), as the published BLT weights need it."""

import jax.numpy as jnp


def rotate(x_BxLxHxC, theta):
    """Rotates pairs by position * theta^(-2i/C). Positions count from the row start (blt.md, section 4.2)."""
    length, channels = x_BxLxHxC.shape[1], x_BxLxHxC.shape[-1]
    frequency = theta ** (-jnp.arange(0, channels, 2, dtype=jnp.float32) / channels)
    angle_LxC2 = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency
    cos, sin = (f(angle_LxC2)[None, :, None, :, None] for f in (jnp.cos, jnp.sin))
    pairs = x_BxLxHxC.astype(jnp.float32).reshape(*x_BxLxHxC.shape[:-1], channels // 2, 2)
    even, odd = pairs[..., :1], pairs[..., 1:]
    turned = jnp.concatenate([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x_BxLxHxC.shape).astype(x_BxLxHxC.dtype)
