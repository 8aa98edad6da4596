"""Every attention backend against a dense float64 one, and what the compiled programs are made
of.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.config import ATTENTION, ConfigError, Stack, Train
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.families.network import Compute
from blt_jax.flops import trace
from blt_jax.nn import splash
from blt_jax.nn.attention import attend, backend_of
from blt_jax.parallel import sharded_embedding, sharding
from blt_jax.parallel.run_compute import compute

TOLERANCE = 5e-5  # float32 against float64, sums over up to 300 keys; what is seen is below 1e-5

BACKENDS = {
    "blockwise": functools.partial(attend, backend="blockwise"),
    "banded": functools.partial(attend, backend="banded"),
}


def case(L=300, H=4, G=2, C=8):
    rng = np.random.default_rng(0)
    q, k, v, weight = (rng.normal(size=(2, L, n, C)).astype(np.float32) for n in (H, G, G, H))
    segment = np.sort(rng.integers(1, 4, (2, L)), axis=1).astype(np.int32)
    segment[1, -7:] = 0  # padding
    return q, k, v, weight, segment


def dense(q, k, v, segment, window):
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    repeat = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, repeat, 2), np.repeat(v, repeat, 2)
    scores = np.einsum("blhc,bmhc->bhlm", q, k) / np.sqrt(q.shape[-1])
    behind = np.arange(q.shape[1])[:, None] - np.arange(q.shape[1])
    mask = (
        (behind >= 0)
        & (behind < (window or q.shape[1]))
        & (segment[:, :, None] == segment[:, None])[:, None]
    )
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask
    return np.einsum("bhlm,bmhc->blhc", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("window", [0, 1, 100, 129, 299])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_dense(backend, window):
    q, k, v, _, segment = case()
    found = jax.jit(functools.partial(BACKENDS[backend], window=window))(q, k, v, segment)
    np.testing.assert_allclose(found, dense(q, k, v, segment, window), atol=TOLERANCE)


def gradients(form, arrays, window):
    q, k, v, weight, segment = arrays
    loss = lambda q, k, v: (form(q, k, v, segment, window) * weight).sum()
    return jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)


@pytest.mark.parametrize("window", [0, 100])
def test_gradients_of_blockwise_equal_those_of_plain_autodiff(window):
    ours, plain = (gradients(BACKENDS[name], case(), window) for name in ("blockwise", "banded"))
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


@pytest.mark.parametrize("window", [0, 100])
def test_splash_interpreted_equals_blockwise(window):
    """The TPU kernel itself, run by the interpreter of Pallas: rows of 300 positions padded to
    384.
    """

    def form(q, k, v, segment, window):
        grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[-1]) * q.shape[-1] ** -0.5
        return splash.attend(grouped, k, v, segment, window, interpret=True).reshape(q.shape)

    arrays = case(C=128)
    q, k, v, _, segment = arrays
    np.testing.assert_allclose(
        form(q, k, v, segment, window), dense(q, k, v, segment, window), atol=TOLERANCE
    )
    for a, b in zip(
        gradients(form, arrays, window),
        gradients(BACKENDS["blockwise"], arrays, window),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


LOCAL = Stack(1, 128, 2, window=64)
MODELS = {
    "blt": Blt(LOCAL, Stack(1, 256, 2), LOCAL, hash_sizes=(3,), hash_rows=64),
    "lm": Lm(Stack(1, 128, 2), vocab=512, unit="token"),
}


def traced(model, backend):
    """Forward and backward, traced."""
    ids = jax.ShapeDtypeStruct((2, 256), jnp.int32)
    batch = {"ids_BxL": ids, "segment_BxL": ids, "patch_BxL": ids, "read_BxL": ids}
    batch["patch_segment_BxP"] = jax.ShapeDtypeStruct((2, 128), jnp.int32)
    how = Compute(jnp.bfloat16, "none", backend)
    step = jax.jit(jax.grad(lambda p, b: network.apply(p, b, MODELS[model], how).mean()))
    return step.trace(network.shapes(MODELS[model]), batch)


def lowered(model, backend, platform):
    """Its StableHLO for a platform that need not be here."""
    return traced(model, backend).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("model", MODELS)
def test_tpu_programs_call_the_kernel(model):
    text = lowered(model, backend_of("tpu"), "tpu")
    assert text.count("tpu_custom_call") >= 3, "forward, dq, dkv"
    assert text.count("stablehlo.exponential") < lowered(model, "banded", "tpu").count(
        "stablehlo.exponential"
    )


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_other_programs_hold_no_foreign_kernel(platform):
    text = lowered("blt", backend_of(platform), platform)
    assert "custom_call" not in text.replace("stablehlo.custom_call @Sharding", "")


def test_kernel_runs_per_device_under_a_mesh():
    mesh = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1, 1),
        ("data", "fsdp", "tensor"),
        axis_types=(jax.sharding.AxisType.Auto,) * 3,
    )
    with sharding.context(mesh):
        program = traced("lm", "splash")
        assert "tpu_custom_call" in program.lower(lowering_platforms=("tpu",)).as_text()
    text = str(program.jaxpr)
    assert "shard_map" in text and "fsdp" in text[text.index("shard_map") :]
    assert "shard_map" not in str(traced("lm", "splash").jaxpr), (
        "and without a mesh it is called as it is"
    )


def test_the_platform_chooses_and_says_so(caplog):
    with caplog.at_level("INFO"):
        assert compute(Train(), "tpu") == Compute(
            jnp.dtype("bfloat16"), "none", "splash", sharded_embedding.lookup
        )
    assert "attention by splash" in caplog.text
    assert compute(Train(attention="banded"), "tpu").attention == "banded"
    assert {backend_of(p) for p in ("cpu", "gpu", "tpu")} == set(ATTENTION)
    with pytest.raises(ConfigError, match="no attention backend for platform 'abacus'"):
        backend_of("abacus")


def test_training_keeps_no_scores():
    """Nothing of L x L, not even a mask: the largest array is what the layers' feed-forwards
    keep.
    """
    length = 2048
    config = Lm(Stack(2, 32, 2, ffn_multiple=8), vocab=64, unit="token")
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
    step = jax.jit(jax.grad(lambda p, b: network.apply(p, b, config).mean()))
    found = trace.count(step, network.shapes(config), {"ids_BxL": ids, "segment_BxL": ids})
    assert found.largest[0] <= 2 * length * config.stack.ffn and not found.unknown, found
