"""Draws of the next id."""

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.infer import sampling

LOGITS = np.log(np.array([0.15, 0.5, 0.05, 0.3], np.float32))
choose = jax.jit(sampling.choose)


def drawn(temperature, top_p, rows=2000):
    ids = choose(np.tile(LOGITS, (rows, 1)), sampling.row_keys(0, rows), 7, temperature, top_p)
    return np.bincount(ids, minlength=4) / rows


def test_nucleus():
    np.testing.assert_allclose(drawn(1.0, 0.6), [0, 0.625, 0, 0.375], atol=0.04)
    np.testing.assert_allclose(drawn(1.0, 1.0), [0.15, 0.5, 0.05, 0.3], atol=0.04)
    squared = np.array([0.15, 0.5, 0.05, 0.3]) ** 2
    np.testing.assert_allclose(drawn(0.5, 1.0), squared / squared.sum(), atol=0.04)
    assert drawn(0.0, 1.0, 8)[1] == 1 and drawn(1.0, 0.01, 8)[1] == 1
    assert choose(np.zeros((1, 5), np.float32), sampling.row_keys(0, 1), 0, 0.0, 1.0) == 0, (
        "the first of the likeliest"
    )


def test_a_draw_depends_on_seed_row_and_step_alone():
    flat = np.zeros((4, 260), np.float32)
    draw = lambda seed, rows, step: choose(
        flat[:rows], sampling.row_keys(seed, rows), step, 1.0, 1.0
    )
    base = draw(0, 4, 0)
    assert len(set(base.tolist())) > 1 and (base[:2] == draw(0, 2, 0)).all()
    assert (base != draw(1, 4, 0)).any() and (base != draw(0, 4, 1)).any()
    assert jnp.issubdtype(base.dtype, jnp.int32)
