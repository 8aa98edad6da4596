"""One step in parts: rows a few at a time, the head some positions at a time; the same numbers as
at once.
"""

import dataclasses
import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.config import ConfigError, Mesh, Optimizer, Stack, Train
from blt_jax.families import head, network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.parallel import sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.patching import Patching
from blt_jax.runs.config import Run
from blt_jax.train import optimizer
from blt_jax.train.step import make_step, new_state
from tests.interop.test_round_trip import random_params

LOCAL = Stack(1, 16, 2, window=8, ffn=24)
MODELS = {
    "lm": Lm(Stack(2, 16, 2, ffn=24), vocab=300, unit="token"),
    "lm, tied": Lm(Stack(2, 16, 2, ffn=24), vocab=300, unit="token", tied=True),
    "blt": Blt(LOCAL, Stack(1, 32, 2, ffn=48), LOCAL, hash_sizes=(3,), hash_rows=64),
}
ROWS, L, P = 6, 20, 7


def run_of(model, **train):
    patched = isinstance(model, Blt)
    return Run(
        name="x",
        family="x",
        size="x",
        model=model,
        store="",
        index="",
        validation_index="",
        patching=Patching() if patched else None,
        tokenizer="" if patched else "t",
        train=Train(rows=ROWS, **train),
    )


def batch_of(model):
    """Rows with unequal numbers of targets: a mean of means would differ from the mean."""
    key = iter(jax.random.split(jax.random.key(1), 4))
    ids = lambda: jax.random.randint(next(key), (ROWS, L), 4, model.vocab)
    mask = (jnp.arange(L) < jnp.arange(5, 5 + 3 * ROWS, 3)[:, None]).astype(jnp.float32)
    batch = {"ids_BxL": ids(), "targets_BxL": ids(), "segment_BxL": jnp.ones((ROWS, L), jnp.int32)}
    batch |= {"loss_mask_BxL": mask, "bytes_BxL": mask.astype(jnp.int32)}
    if isinstance(model, Blt):
        patch = jnp.minimum(jnp.arange(L) // 3, P - 1) * jnp.ones((ROWS, 1), jnp.int32)
        batch |= {"patch_BxL": patch, "read_BxL": jnp.maximum(patch - 1, 0)}
        batch |= {"patch_segment_BxP": jnp.ones((ROWS, P), jnp.int32)}
    return batch


def stepped(run):
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    state = new_state(run, mesh)
    batch = jax.device_put(batch_of(run.model), sharding.batch_sharding(mesh))
    with sharding.context(mesh):
        state, metrics = make_step(run, mesh)(state, batch, optimizer.schedule(run.optimizer, 10))
    return jax.device_get((state["params"], metrics))


@pytest.mark.parametrize(
    "name, device_rows", [("lm", 2), pytest.param("blt", 1, marks=pytest.mark.slow)]
)
def test_rows_a_few_at_a_time(name, device_rows):
    """Every parameter. The first step of Adam is the sign of the gradient, near enough; with a
    larger eps an entry whose gradient is rounding noise hardly moves, where it would else move
    either way.
    """
    run = dataclasses.replace(
        run_of(MODELS[name]), optimizer=Optimizer(warmup_steps=0, learning_rate=1e-2, eps=1e-4)
    )
    params, metrics = stepped(run)
    parts, told = stepped(
        dataclasses.replace(run, train=dataclasses.replace(run.train, device_rows=device_rows))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), told, metrics)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()),
        parts,
        params,
    )


def test_parts_must_be_whole():
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    with pytest.raises(
        ConfigError, match="train.rows = 6: must be a multiple of 4, train.device_rows on 1 devices"
    ):
        make_step(run_of(MODELS["lm"], device_rows=4), mesh)


def gradients(model):
    """jitted (params, batch) -> ((sum of losses, losses), gradient), traced anew."""

    def total(params, batch):
        losses = network.losses(params, batch, model, network.PLAIN)
        return (losses * batch["loss_mask_BxL"]).sum(), losses

    return jax.jit(jax.value_and_grad(total, has_aux=True))


@functools.cache
def at_once(name):
    """(params, losses, gradient) of a model whose head reads a row in one piece; the losses are
    those of its logits.
    """
    model, batch = MODELS[name], batch_of(MODELS[name])
    params = random_params(model)
    (_, whole), gradient = gradients(model)(params, batch)
    logits = jax.jit(lambda p, b: network.apply(p, b, model, network.PLAIN))(params, batch)
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets_BxL"][..., None], -1)[
        ..., 0
    ]
    np.testing.assert_allclose(whole, -logp, atol=1e-5)
    return params, whole, gradient


@pytest.mark.parametrize("name, part", [("lm", 10), ("lm", 7), ("lm, tied", 7), ("blt", 7)])
def test_head_some_positions_at_a_time(name, part, monkeypatch):
    """Losses and gradients, with parts that fill the row and parts that do not."""
    model, (params, whole, gradient) = MODELS[name], at_once(name)
    monkeypatch.setattr(head, "LOGITS", part * model.vocab)
    assert head.positions_at_a_time(L, model.vocab) <= part
    traced = gradients(model).trace(params, batch_of(model))
    (_, cut), in_parts = traced.lower().compile()(params, batch_of(model))
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), in_parts, gradient)
    shapes = {v.aval.shape for e in _equations(traced.jaxpr.jaxpr) for v in e.outvars}
    assert not {
        s
        for s in shapes
        if len(s) > 2 and s[-1] == model.vocab and np.prod(s) > ROWS * part * model.vocab
    }


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for sub in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _equations(sub)
