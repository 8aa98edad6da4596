"""Bad steps: a loss or gradient that is no number, or a loss far above what it was lately.

Judged inside the step, on the device, so that a bad update is never made where it is to be skipped.
"""

from typing import Any

import jax
import jax.numpy as jnp

FOLLOWS = 0.02  # weight of the newest loss in the recent mean: it spans about 50 steps
IN_A_ROW = 50  # so many skipped steps after each other end a run: nothing is learned


def judge(
    recent: jax.Array, loss: jax.Array, gradient_norm: jax.Array, spike: float
) -> tuple[jax.Array, jax.Array]:
    """(good, recent): bool and float32 scalars. `recent`: mean loss of the good steps lately, 0
    before the first.

    `spike`: a loss above so many times `recent` is bad; 0: only what is no number is.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    if spike:
        good &= (recent == 0) | (loss <= spike * recent)
    follow = jnp.where(recent == 0, loss, recent + FOLLOWS * (loss - recent))
    return good, jnp.where(good, follow, recent)


def keep_if(good: jax.Array, new: Any, old: Any) -> Any:
    """`new` where the step is good, else `old`: trees of arrays."""
    return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
