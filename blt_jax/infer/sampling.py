"""The next id by its logits: the likeliest, or a draw from the nucleus (Holtzman et al., arXiv
1904.09751).
"""

import jax
import jax.numpy as jnp


def row_keys(seed: int, rows: int) -> jax.Array:
    """A key for each row, which depends on the seed and the row's number alone."""
    return jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.arange(rows))


def choose(
    logits_BxV: jax.Array,
    keys_B: jax.Array,
    step: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
) -> jax.Array:
    """Ids, int32 [B]: at temperature 0 the first of the likeliest, else a draw of `step` from the
    nucleus `top_p`.
    """

    def nucleus(logits_BxV):
        """Without the logits of ids beyond the likeliest that hold `top_p` of the probability."""
        falling_BxV = -jnp.sort(-logits_BxV, axis=-1)
        probability = jax.nn.softmax(falling_BxV, axis=-1)
        before_BxV = jnp.cumsum(probability, axis=-1) - probability
        least_Bx1 = jnp.min(
            jnp.where(before_BxV < top_p, falling_BxV, jnp.inf), axis=-1, keepdims=True
        )
        return jnp.where(logits_BxV >= least_Bx1, logits_BxV, -jnp.inf)

    def draw(logits_BxV):
        scaled_BxV = jax.lax.cond(
            top_p < 1, nucleus, lambda logits: logits, logits_BxV / temperature
        )
        of_step_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        # By the inverse of the distribution: one random number for a row, where Gumbel noise takes
        # one for each id.
        probability = jax.nn.softmax(scaled_BxV, axis=-1)
        reached_BxV = jnp.where(probability > 0, jnp.cumsum(probability, axis=-1), 0)
        draw_Bx1 = jax.vmap(jax.random.uniform)(of_step_B)[:, None] * reached_BxV.max(
            axis=-1, keepdims=True
        )
        return jnp.argmax(reached_BxV > draw_Bx1, axis=-1).astype(jnp.int32)

    likeliest = lambda logits_BxV: jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    return jax.lax.cond(temperature > 0, draw, likeliest, logits_BxV)
