"""Bad steps are seen, skipped or stopped at; a skipped one leaves no trace in weights or
moments.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.config import ConfigError, Mesh, Optimizer, Stack, Train
from blt_jax.families.lm.config import Lm
from blt_jax.parallel.mesh import make_mesh
from blt_jax.runs.config import Run
from blt_jax.train import bad_steps, optimizer
from blt_jax.train.step import make_step, new_state

RUN = Run(
    name="x",
    family="x",
    size="x",
    model=Lm(Stack(1, 16, 1, window=8, ffn=16)),
    store="",
    index="",
    validation_index="",
    optimizer=Optimizer(learning_rate=0.01, warmup_steps=0),
    train=Train(steps=10, rows=2, bad_step="skip", spike=1.5),
)


def judged(losses, spike, norms=None):
    """Which of a series of losses are good."""
    recent, good = jnp.float32(0), []
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        ok, recent = bad_steps.judge(recent, jnp.float32(loss), jnp.float32(norm), spike)
        good.append(bool(ok))
    return good


def test_judge():
    nan, inf = float("nan"), float("inf")
    assert judged([5, nan, 5, inf, 4], 0) == [True, False, True, False, True]
    assert judged([5, 5], 0, [nan, inf]) == [False, False]
    assert judged([5, 4, 9, 4.5, 3], 2.0) == [True, True, True, True, True]
    assert judged([5, 4, 10, 4.5, nan, 9.98], 2.0) == [True, True, False, True, False, False]
    assert judged([nan, 5, 5], 2.0) == [False, True, True]
    assert judged([9] + [4] * 200 + [9], 2.0)[-1] is False  # it follows the fall of the loss
    with pytest.raises(ConfigError, match="train.spike = 0.5: must be 0"):
        Train(spike=0.5)


def batch(seed):
    ids = np.random.default_rng(seed).integers(4, 200, (2, 33), np.int32)
    ones = np.ones((2, 32), np.int32)
    return {
        "ids_BxL": ids[:, :-1], "targets_BxL": ids[:, 1:], "segment_BxL": ones, "bytes_BxL": ones,
        "loss_mask_BxL": ones.astype(np.float32),
    }  # fmt: skip


@pytest.mark.parametrize("bad", ["nan", "spike"])
def test_a_skipped_step_leaves_weights_and_moments(bad):
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    step, schedule = make_step(RUN, mesh), optimizer.schedule(RUN.optimizer, 10)
    state, _ = step(new_state(RUN, mesh), batch(0), schedule)
    before = jax.tree.map(np.array, state)
    wrong = batch(1)
    if bad == "nan":
        wrong["loss_mask_BxL"] = wrong["loss_mask_BxL"] * np.nan
    else:
        state["recent_loss"] = jnp.float32(1.0)  # the loss is ln 256 at the start
        before["recent_loss"] = np.float32(1.0)
    state, values = step(state, wrong, schedule)
    assert not values["good"] and state["step"] == 2
    for part in ("params", "moments", "recent_loss"):
        jax.tree.map(np.testing.assert_array_equal, state[part], before[part])
    state["recent_loss"] = jnp.float32(0)
    _, values = step(state, batch(2), schedule)
    assert values["good"] and np.isfinite(values["loss"])


def test_without_skipping_nothing_is_held_back():
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    runs = [
        dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, bad_step=b))
        for b in ("skip", "stop")
    ]
    made = [
        make_step(r, mesh)(new_state(r, mesh), batch(0), optimizer.schedule(r.optimizer, 10))[0]
        for r in runs
    ]
    jax.tree.map(np.testing.assert_array_equal, *made)
