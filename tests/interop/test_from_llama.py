"""Byte-ifying: the latent layers start as a Llama's, and learn at a rate of their own."""

import dataclasses

import jax
import numpy as np
import pytest

from blt_jax.config import ConfigError, Init, Mesh, Optimizer, Stack, Train
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import huggingface
from blt_jax.interop.from_llama import latent_from_llama
from blt_jax.parallel.mesh import make_mesh
from blt_jax.patching import Patching
from blt_jax.record import build, to_dict
from blt_jax.runs.config import Run
from blt_jax.study import grid
from blt_jax.study.config import EntropyModel, Family, Size, Study
from blt_jax.train import optimizer
from blt_jax.train.step import make_step, new_state
from tests.interop.test_round_trip import random_ids, random_params
from tests.reference import hf_fixture

LOCAL = Stack(1, 16, 2, ffn=24, window=8)
LATENT = Stack(2, 24, 3, kv_heads=1, ffn=40, rope_theta=7000.0)
BLT = Blt(LOCAL, LATENT, LOCAL, hash_sizes=(3,), hash_rows=50)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    config = Lm(LATENT, vocab=70, unit="token")
    params = random_params(config)
    huggingface.save(folder, config, params)
    return folder, params["stack"]


def run(folder, factor=0.1):
    return Run(
        name="x",
        family="x",
        size="x",
        model=BLT,
        store="s",
        index="i",
        validation_index="v",
        patching=Patching("space"),
        optimizer=Optimizer(learning_rate=0.01, warmup_steps=0),
        init=Init(str(folder), factor),
        train=Train(steps=10),
    )


@pytest.fixture(scope="module")
def state(llama):
    """A new state that started from the Llama, in NumPy."""
    return jax.tree.map(np.array, new_state(run(llama[0]), make_mesh(Mesh())))


def test_latent_layers_are_the_llamas(llama, state):
    folder, stack = llama
    latent = latent_from_llama(folder, BLT)
    jax.tree.map(np.testing.assert_array_equal, latent, stack)
    jax.tree.map(np.testing.assert_array_equal, state["params"]["latent"], stack)
    plain = new_state(dataclasses.replace(run(folder), init=Init()), make_mesh(Mesh()))["params"]
    assert (
        np.abs(plain["latent"]["layers"]["q"]["kernel"] - stack["layers"]["q"]["kernel"]).max()
        > 0.01
    )
    for part in ("encoder", "to_latent", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, state["params"][part], plain[part])


def test_every_mismatch_is_named(llama):
    other = dataclasses.replace(LATENT, layers=3, ffn=48, rope_theta=5e5, norm_eps=1e-6, kv_heads=3)
    with pytest.raises(ConfigError) as error:
        latent_from_llama(llama[0], dataclasses.replace(BLT, latent=other))
    line = str(error.value)
    for part in (
        "layers is 3 and 2 in",
        "ffn is 48 and 40",
        "rope_theta is 500000.0 and 7000.0",
        "norm_eps",
        "kv_heads",
    ):
        assert part in line
    assert "\n" not in line and "width" not in line


def test_latent_layers_learn_at_their_own_rate(llama, state):
    """The first update of AdamW is about 1 for every weight that has a gradient, so steps show the
    rate.
    """
    mesh, one = make_mesh(Mesh()), run(llama[0], factor=0.05)
    ids = random_ids((2, 24), 260)
    batch = hf_fixture.batch(ids, np.array([[1, 3, 1, 9, 2, 5, 4, 0], [1, 1, 2, 2, 6, 3, 7, 3]]))
    batch |= {
        "targets_BxL": np.roll(ids, -1, 1),
        "loss_mask_BxL": np.ones_like(ids),
        "bytes_BxL": np.ones_like(ids),
    }
    after, _ = make_step(one, mesh)(
        jax.device_put(state), batch, optimizer.schedule(one.optimizer, 10)
    )
    for part, kernel in (("latent", ("layers", "q")), ("decoder", ("head",)), ("to_latent", ())):
        old, new = state["params"][part], after["params"][part]
        for key in (*kernel, "kernel"):
            old, new = old[key], new[key]
        step = np.median(np.abs(np.asarray(new) - old)) / one.optimizer.learning_rate
        assert abs(step / (0.05 if part == "latent" else 1.0) - 1) < 0.1, part


def test_a_study_gives_it_to_its_blts_only(llama):
    local = Lm(LOCAL)
    families = {
        "bytes": Family({"s": Size(local, 0.01)}),
        "patches": Family({"s": Size(BLT, 0.01)}, Patching("space")),
    }
    study = Study(
        "x", families, (1e13,), EntropyModel(Size(local, 0.01)), init=Init(str(llama[0]), 0.2)
    )
    inits = {one.run.family: one.run.init for one in grid.plan(study, grid.assumed_facts(study))}
    assert inits == {"bytes": Init(), "patches": Init(str(llama[0]), 0.2)}


def test_only_a_blt_can_start_from_a_llama(llama):
    with pytest.raises(ConfigError, match="init.from_llama .* only a BLT has a latent model"):
        dataclasses.replace(run(llama[0]), model=Lm(LOCAL), patching=None)
    whole = run(llama[0])
    assert build(Run, to_dict(whole)) == whole
