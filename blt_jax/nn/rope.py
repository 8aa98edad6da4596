"""Rotary position embedding over interleaved pairs (2i, 2i+1), as the published BLT weights need
it.
"""

import jax
import jax.numpy as jnp
import numpy as np


def frequencies(channels: int, theta: float, scaling: tuple[float, ...] = ()) -> np.ndarray:
    """Radians per position of each pair, float32 [channels / 2]: theta^(-2i/C).

    `scaling`: Llama 3.1's (factor, low, high, length). Waves longer than length / low are slowed
    down by `factor`, shorter than length / high left alone, between them a linear blend in 1 /
    wavelength.
    """
    plain = np.float32(theta) ** (-np.arange(0, channels, 2, dtype=np.float32) / channels)
    if not scaling:
        return plain
    factor, low, high, length = scaling
    blend = np.clip((length * plain / (2 * np.pi) - low) / (high - low), 0, 1)
    return (plain * (blend + (1 - blend) / factor)).astype(np.float32)


def rotate(
    x_BxLxHxC: jax.Array,
    theta: float,
    scaling: tuple[float, ...] = (),
    position_BxL: jax.Array | None = None,
) -> jax.Array:
    """Rotates pairs by position x `frequencies`. Positions count from the row start (docs/blt.md,
    section 4.2), where x begins unless `position_BxL` says otherwise.
    """
    length, channels = x_BxLxHxC.shape[1], x_BxLxHxC.shape[-1]
    position_BxL = jnp.arange(length)[None] if position_BxL is None else position_BxL
    angle_BxLxC2 = position_BxL.astype(jnp.float32)[..., None] * frequencies(
        channels, theta, scaling
    )
    cos, sin = (f(angle_BxLxC2)[:, :, None, :, None] for f in (jnp.cos, jnp.sin))
    pairs = x_BxLxHxC.astype(jnp.float32).reshape(*x_BxLxHxC.shape[:-1], channels // 2, 2)
    even, odd = pairs[..., :1], pairs[..., 1:]
    turned = jnp.concatenate([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x_BxLxHxC.shape).astype(x_BxLxHxC.dtype)
