"""The next id by its logits: the likeliest, or a draw from the nucleus (Holtzman et al., arXiv 1904.09751)."""

import jax
import jax.numpy as jnp


def row_keys(seed, rows):
    """A key for each row, which depends on the seed and the row's number alone."""
    return jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(jnp.arange(rows))


def choose(logits_BxV, keys_B, step, temperature, top_p):
    """Ids, int32 [B]: at temperature 0 the first of the likeliest, else a draw of `step` from the nucleus `top_p`."""

    def draw(logits_BxV):
        order_BxV = jnp.argsort(-logits_BxV, axis=-1)
        sorted_BxV = jnp.take_along_axis(logits_BxV, order_BxV, axis=-1) / temperature
        probability = jax.nn.softmax(sorted_BxV, axis=-1)
        before_BxV = jnp.cumsum(probability, axis=-1) - probability
        nucleus = jnp.where((before_BxV < top_p) | (top_p >= 1), sorted_BxV, -jnp.inf)
        keys_B_ = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        drawn_B = jax.vmap(jax.random.categorical)(keys_B_, nucleus)
        return jnp.take_along_axis(order_BxV, drawn_B[:, None], axis=-1)[:, 0].astype(jnp.int32)

    likeliest = lambda logits_BxV: jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)  # noqa: E731
    return jax.lax.cond(temperature > 0, draw, likeliest, logits_BxV)
