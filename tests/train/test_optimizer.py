"""The schedule as traced numbers; one optimiser step against optax's own adamw."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from blt_jax.config import TABLE_BYTES, Optimizer
from blt_jax.train import optimizer


def rates(config, steps):
    schedule = optimizer.schedule(config, steps)
    return [float(optimizer.learning_rate(jnp.float32(s), schedule)) for s in range(steps + 1)]


def test_warm_up_and_cosine():
    found = rates(Optimizer(learning_rate=1.0, warmup_steps=4, final_ratio=0.1), 20)
    assert np.allclose(found[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert (
        np.isclose(found[12], 0.55)
        and np.isclose(found[20], 0.1)
        and (np.diff(found[4:]) <= 0).all()
    )


def test_equals_optax_adamw():
    config = Optimizer(learning_rate=0.01, warmup_steps=0, weight_decay=0.1, clip=0.5)
    params = {"w": jnp.arange(4.0), "v": jnp.ones((2, 2))}
    gradient = jax.tree.map(lambda x: jnp.sin(x) + 1, params)
    theirs = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(0.01, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1),
    )
    expected = optax.apply_updates(params, theirs.update(gradient, theirs.init(params), params)[0])
    tx = optimizer.transform(config)
    updates, _ = tx.update(gradient, tx.init(params), params)
    rate = optimizer.learning_rate(jnp.float32(0), optimizer.schedule(config, 10))
    ours = jax.tree.map(lambda w, u: w - rate * u, params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)


TABLES = {
    "adam": 8,
    "adafactor": 0,
    "lion": 2,
}  # bytes of state per parameter of a table, but for what is factored


@pytest.mark.parametrize("rule", TABLES)
def test_each_rule_trains_the_tables_and_costs_what_it_says(rule):
    """Tables learn to sum to what rows ask for; rows that nothing reads stay, whatever the rule."""
    config = Optimizer(warmup_steps=0, learning_rate=0.02, weight_decay=0.0, clip=1.0, tables=rule)
    key = jax.random.split(jax.random.key(0), 4)
    params = {"hash": {"tables": jax.random.normal(key[0], (3, 50, 16)) / 4}, "w": jnp.eye(16)}
    ids, wanted = jax.random.randint(key[1], (3, 64), 0, 40), jax.random.normal(key[2], (64, 16))
    tx = optimizer.transform(config)

    def loss(params):
        summed = sum(table[rows] for table, rows in zip(params["hash"]["tables"], ids, strict=True))
        return jnp.mean((summed @ params["w"] - wanted) ** 2)

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradient, state, params)
        return (
            jax.tree.map(lambda w, u: w - config.learning_rate * u, params, updates),
            state,
        ), value

    state = tx.init(params)
    rest = 8 * params["w"].size
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state) if x.ndim) - rest
    factored = (
        4 * 3 * (50 + 16) + 4 if rule == "adafactor" else 0
    )  # means over rows, over columns, and a placeholder
    assert held == TABLES[rule] * 3 * 50 * 16 + factored and TABLES == TABLE_BYTES
    (trained, _), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, length=150))(
        (params, state)
    )
    assert losses[-1] < 0.3 * losses[0], losses[::30]
    start, end = params["hash"]["tables"], trained["hash"]["tables"]
    unread = np.ones((3, 50), bool)
    unread[np.arange(3)[:, None], ids] = False
    assert (
        np.array_equal(start[unread], end[unread])
        and (np.abs(end - start)[~unread].max(-1) > 0).all()
    )


def test_a_row_that_is_read_no_more_rests_under_lion():
    """Its moment fades for thousands of steps, and the sign of what is left would be a whole step
    each time.
    """
    tx = optimizer.transform(Optimizer(weight_decay=0.0, tables="lion"))
    params = {"tables": jnp.ones((1, 4, 2))}
    read = lambda row: {"tables": jnp.zeros((1, 4, 2)).at[0, row].set(1.0)}
    state = tx.init(params)
    _, state = tx.update(read(0), state, params)
    updates, _ = tx.update(read(1), state, params)
    assert np.array_equal(updates["tables"][0, :, 0], [0, 1, 0, 0])
