"""A family whose training adds a loss of its own, and makes patches inside the model: the step asks
the port, and needs nothing more.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from blt_jax.config import BYTE_VOCAB, Mesh, Optimizer, Train
from blt_jax.families import Losses, Model
from blt_jax.flops import analytic
from blt_jax.parallel import sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.runs.config import Run
from blt_jax.train import optimizer
from blt_jax.train.meter import Meter
from blt_jax.train.step import make_step, new_state

ROWS, L, WIDTH = 4, 6, 3


class Table(nn.Module):
    """A bigram model: an embedding and a head."""

    @nn.compact
    def __call__(self, batch, head=True):
        shape = {"embedding": (BYTE_VOCAB, WIDTH), "head": (WIDTH, BYTE_VOCAB)}
        normal = nn.initializers.normal(0.1)
        parts = {name: self.param(name, normal, size) for name, size in shape.items()}
        x_BxLxD = parts["embedding"][batch["ids_BxL"]]
        return x_BxLxD @ parts["head"] if head else x_BxLxD


@dataclasses.dataclass(frozen=True)
class Stub(Model):
    vocab: int = BYTE_VOCAB
    tied: bool = False
    init_factor: str = "disabled"
    weight: float = 0.0  # of the auxiliary loss
    kind: str = "stub"

    @property
    def patches(self):
        return "made"

    @property
    def head_width(self):
        return WIDTH

    def describe(self):
        return "a stub"

    def parameters(self):
        counts = dict.fromkeys(("encoder", "pooling", "latent", "decoder", "hash_tables"), 0)
        return counts | {"embedding": BYTE_VOCAB * WIDTH, "head": BYTE_VOCAB * WIDTH}

    def module(self, compute):
        return Table()

    def losses(self, params, batch, compute):
        logits = self.module(compute).apply({"params": params}, batch)
        logp = jax.nn.log_softmax(logits)
        nats = -jnp.take_along_axis(logp, batch["targets_BxL"][..., None], -1)[..., 0]
        if not self.weight:
            return Losses(nats, 0.0, {})
        squares = (params["embedding"][batch["ids_BxL"]] ** 2).sum(-1)
        metrics = {"patches": (batch["ids_BxL"] % 2 == 0).sum(), "squares": squares.sum()}
        return Losses(nats, self.weight * squares.mean(), metrics)


def batch():
    ids = jax.random.randint(jax.random.key(0), (ROWS, L + 1), 4, 30)
    mask = (jnp.arange(L) < jnp.arange(2, 2 + ROWS)[:, None]).astype(jnp.float32)
    return {
        "ids_BxL": ids[:, :-1],
        "targets_BxL": ids[:, 1:],
        "segment_BxL": jnp.ones((ROWS, L), jnp.int32),
        "loss_mask_BxL": mask,
        "bytes_BxL": mask.astype(jnp.int32),
    }


def run_of(weight, device_rows=0):
    return Run(
        name="x",
        family="x",
        size="x",
        model=Stub(weight=weight),
        store="",
        index="",
        validation_index="",
        optimizer=Optimizer(warmup_steps=0, learning_rate=1e-2, eps=1e-4, clip=1e9),
        train=Train(rows=ROWS, device_rows=device_rows),
    )


def stepped(run):
    mesh = make_mesh(Mesh(), jax.devices()[:1])
    state = new_state(run, mesh)
    before = jax.device_get(state["params"])
    with sharding.context(mesh):
        laid = jax.device_put(batch(), sharding.batch_sharding(mesh))
        state, metrics = make_step(run, mesh)(state, laid, optimizer.schedule(run.optimizer, 10))
    return before, jax.device_get(state["params"]), jax.device_get(metrics)


@pytest.mark.parametrize("device_rows", [0, 2])
def test_the_step_adds_what_the_model_adds(device_rows):
    """Loss, gradient and metrics, also over parts of the batch."""
    before, plain, alone = stepped(run_of(0.0, device_rows))
    _, params, metrics = stepped(run_of(0.5, device_rows))
    rows = batch()
    ids, mask = np.asarray(rows["ids_BxL"]), np.asarray(rows["loss_mask_BxL"])
    squares = (before["embedding"][ids] ** 2).sum(-1)
    assert metrics["nats"] == pytest.approx(alone["nats"], rel=1e-6)
    assert alone["loss"] == pytest.approx(alone["nats"] / mask.sum(), rel=1e-6)
    assert metrics["loss"] - alone["loss"] == pytest.approx(0.5 * squares.mean(), rel=1e-3)
    assert metrics["squares"] == pytest.approx(squares.sum(), rel=1e-6)
    assert metrics["patches"] == (ids % 2 == 0).sum() and alone["patches"] == 0
    gradient = jax.grad(lambda e: 0.5 * (e[ids] ** 2).sum(-1).mean())(
        jnp.asarray(before["embedding"])
    )
    assert np.abs(gradient).max() > 0 and not np.allclose(params["embedding"], plain["embedding"])
    np.testing.assert_array_equal(params["head"], plain["head"])
    whole = stepped(run_of(0.5))
    np.testing.assert_allclose(params["embedding"], whole[1]["embedding"], atol=1e-6)


def test_the_meter_records_the_models_own_metrics(monkeypatch):
    run = run_of(0.5)
    _, _, values = stepped(run)
    monkeypatch.setattr(Meter, "_speed", lambda self, window: {})
    header = {"row_positions": L, "row_patches": 0}
    meter = Meter(run, header, None, jax.devices()[:1])
    meter.add(values, 0.0)
    meter = Meter(run, header, None, jax.devices()[:1], saved=meter.state())
    meter.add(values, 0.0)
    line = meter.record(2, values)
    assert line["model"] == {"squares": pytest.approx(float(values["squares"]))}
    assert line["bytes_per_patch"] == pytest.approx(values["text_bytes"] / values["patches"])
    meter.add(values, 0.0)
    assert meter.record(3, values)["model"] == line["model"], "a window begins anew"


def test_what_a_stub_costs():
    cost = analytic.per_byte(Stub(), patch_size=4.0, context_bytes=L, convention="exact")
    assert cost.total == cost.head == 2 * WIDTH * BYTE_VOCAB
