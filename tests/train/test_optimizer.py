"""The schedule as traced numbers; one optimiser step against optax's own adamw."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from blt_jax.config import Optimizer
from blt_jax.train import optimizer


def rates(config, steps):
    schedule = optimizer.schedule(config, steps)
    return [float(optimizer.learning_rate(jnp.float32(s), schedule)) for s in range(steps + 1)]


def test_warm_up_and_cosine():
    found = rates(Optimizer(learning_rate=1.0, warmup_steps=4, final_ratio=0.1), 20)
    assert np.allclose(found[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    assert np.isclose(found[12], 0.55) and np.isclose(found[20], 0.1) and (np.diff(found[4:]) <= 0).all()


def test_equals_optax_adamw():
    config = Optimizer(learning_rate=0.01, warmup_steps=0, weight_decay=0.1, clip=0.5)
    params = {"w": jnp.arange(4.0), "v": jnp.ones((2, 2))}
    gradient = jax.tree.map(lambda x: jnp.sin(x) + 1, params)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.01, b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.1))
    expected = optax.apply_updates(params, theirs.update(gradient, theirs.init(params), params)[0])
    tx = optimizer.transform(config)
    updates, _ = tx.update(gradient, tx.init(params), params)
    rate = optimizer.learning_rate(jnp.float32(0), optimizer.schedule(config, 10))
    ours = jax.tree.map(lambda w, u: w - rate * u, params, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, expected)
