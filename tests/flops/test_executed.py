"""The executed convention against the program: to the unit in its jaxpr, and nearly in XLA's own count."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from blt_jax import models
from blt_jax.config import Blt, ConfigError, Lm, Stack
from blt_jax.flops import differences, executed_row, per_byte, trace
from blt_jax.flops.analytic import ATTENTION_BLOCK, ATTENTION_SPAN, ATTENTIONS
from blt_jax.nn import attention, blockwise

B = 2  # rows of every traced batch
LOCAL = Stack(2, 16, 4, kv_heads=2, window=8, ffn=24)
LATENT = Stack(3, 24, 4, kv_heads=2, ffn=40)
BLT = Blt(LOCAL, LATENT, LOCAL, hash_sizes=(), hash_rows=50)
LM = Lm(dataclasses.replace(LOCAL, layers=3))


def lm(**stack):
    return dataclasses.replace(LM, stack=dataclasses.replace(LM.stack, **stack))


def blt(**fields):
    return dataclasses.replace(BLT, **fields)


def local(**fields):
    stack = dataclasses.replace(LOCAL, **fields)
    return {"encoder": stack, "decoder": stack}


CASES = {  # model, positions, patch slots
    "lm": (LM, 21, 0),
    "lm, no layers": (lm(layers=0), 24, 0),
    "lm, tied, window longer than the row": (dataclasses.replace(lm(window=99), tied=True), 24, 0),
    "tokens": (Lm(LATENT, vocab=300, unit="token"), 17, 0),
    "tokens, tied": (Lm(LATENT, vocab=300, unit="token", tied=True), 17, 0),
    "blt, hashed and tied": (blt(hash_sizes=(3, 5), tied=True, hash_norm=True, hash_short="omit"), 21, 6),
    "blt, no projection, one patch, a long window": (
        blt(slots=2, latent=dataclasses.replace(LATENT, width=32), **local(window=64, kv_heads=4)),
        21,
        1,
    ),
    "blt, windowed latent, more slots than bytes": (
        blt(latent=dataclasses.replace(LATENT, window=4), pool_from="embeddings", **local(layers=1)),
        9,
        20,
    ),
}
for slots, encoder_cross in enumerate(("none", "last", "all"), 1):
    for more, decoder_cross in enumerate(("none", "first", "all")):
        how = dict(slots=min(slots + more, 4), cross_heads=8, cross_kv_heads=2**slots)
        crossed = blt(encoder_cross=encoder_cross, decoder_cross=decoder_cross, **how)
        CASES[f"blt, {encoder_cross}, {decoder_cross}"] = (crossed, 21, 6)


@functools.cache
def parameters(model):
    return models.shapes(model)


def shapes(model, positions, slots):
    """Parameters and a batch of B rows, as shapes."""
    ints = lambda n: jax.ShapeDtypeStruct((B, n), jnp.int32)  # noqa: E731
    keys = ["ids_BxL", "segment_BxL"] + ["patch_BxL", "read_BxL"] * isinstance(model, Blt)
    batch = {key: ints(positions) for key in keys}
    if isinstance(model, Blt):
        batch["patch_segment_BxP"] = ints(slots)
    return parameters(model), batch


def forward(model, **compute):
    return jax.jit(lambda params, batch: models.apply(params, batch, model, models.Compute(**compute)))


def with_gradient(model, **compute):
    def loss(params, batch):
        logp = jax.nn.log_softmax(models.apply(params, batch, model, models.Compute(**compute)))
        return -jnp.take_along_axis(logp, batch["ids_BxL"][..., None], axis=-1).mean()

    return jax.jit(jax.value_and_grad(loss))


def check(name, program, **how):
    model, positions, slots = CASES[name]
    found = trace.count(program(model, **how), *shapes(model, positions, slots))
    expected = executed_row(model, positions, slots, training=program is with_gradient, **how)
    assert not found.unknown
    assert found.flops == B * expected.total, f"off by {found.flops - B * expected.total}"
    assert all(type(value) is int for value in expected.as_dict().values())


@pytest.mark.parametrize("name", CASES)
def test_equals_the_jaxpr_to_the_unit(name):
    check(name, forward, attention="banded")
    check(name, with_gradient, attention="banded")
    check(name, with_gradient, attention="banded", remat="full")


@pytest.mark.parametrize("name", ["lm", "tokens", "blt, all, all"])
def test_equals_the_jaxpr_with_the_default_attention(name):
    check(name, forward)
    check(name, forward, remat="full")  # which nothing is differentiated to need
    check(name, with_gradient)
    check(name, with_gradient, remat="full")


@pytest.mark.parametrize("backend", ATTENTIONS)
@pytest.mark.parametrize("length", [1, 7, 24, 128, 300, 512])
def test_attention_of_any_window(backend, length):
    H, G, C = 4, 2, 6
    q, kv = (jax.ShapeDtypeStruct((B, length, heads, C), jnp.float32) for heads in (H, G))
    segment = jax.ShapeDtypeStruct((B, length), jnp.int32)
    for window in {0, 1, 2, 8, 128, 129, 130, 257, length - 1, length, 999}:
        attend = lambda q, k, v, segment: attention.attend(q, k, v, segment, window, backend)  # noqa: B023, E731
        loss = lambda *args: attend(*args).sum()  # noqa: B023, E731
        model = Lm(Stack(1, H * C, H, kv_heads=G, ffn=1, window=window))
        for training, program in ((False, attend), (True, jax.value_and_grad(loss, (0, 1, 2)))):
            found = trace.count(jax.jit(program), q, kv, kv, segment).flops
            latent = executed_row(model, length, training=training, attention=backend).latent
            dense = length * (3 if training else 1) * (2 * H * C * C * (2 * H + 2 * G) + 6 * H * C)
            assert found == B * (latent - dense), (window, training)


def test_what_the_formulas_know_of_attention():
    assert (ATTENTION_BLOCK, ATTENTION_BLOCK, ATTENTION_SPAN) == (attention.BLOCK, blockwise.BLOCK, blockwise.SPAN)
    assert ATTENTIONS[0] == models.Compute().attention


@pytest.mark.parametrize("backend", ATTENTIONS)
@pytest.mark.parametrize("program", [forward, with_gradient])
def test_no_array_pairs_bytes_with_bytes_or_patches(program, backend):
    """Memory is O(L), except for the latent model's P x P scores (design: no byte x patch array)."""
    positions, slots = 8192, 2048
    model = blt(encoder_cross="all", slots=1, **local(heads=2, kv_heads=1, window=32))
    model = dataclasses.replace(model, latent=Stack(1, 8, 1, ffn=8))
    elements, shape = trace.count(program(model, attention=backend), *shapes(model, positions, slots)).largest
    assert B * positions * 260 <= elements < B * positions * slots / 2, shape


def test_full_attention_is_seen_to_pair_positions():
    elements, _ = trace.count(forward(lm(window=0), attention="banded"), *shapes(lm(window=0), 512, 0)).largest
    assert elements == B * 4 * 512**2


# XLA counts elementwise work too, 1 FLOP per element and operation, and the body of a loop once, however often it
# runs. So the layer is one and attention has no loop, and XLA's figure lies above ours by norms, RoPE, masks,
# softmax, the loss and SwiGLU: in the Lm about 35 operations per byte and feature against 3,000 FLOPs of products.
WIDE = Stack(1, 128, 4, kv_heads=2, window=16, ffn=256)
ONE_LAYER = {
    "lm": (Lm(WIDE), 64, 0),
    "blt": (Blt(WIDE, dataclasses.replace(WIDE, window=0, width=256), WIDE, hash_rows=50, hash_sizes=(3,)), 64, 16),
}


@pytest.mark.parametrize("program", [forward, with_gradient])
@pytest.mark.parametrize("name", ONE_LAYER)
def test_agrees_with_xla(name, program):
    model, positions, slots = ONE_LAYER[name]
    lowered = program(model, attention="banded").lower(*shapes(model, positions, slots))
    theirs = lowered.cost_analysis()["flops"]
    ours = B * executed_row(model, positions, slots, training=program is with_gradient, attention="banded").total
    assert 0.005 < theirs / ours - 1 < 0.02


def test_rows_of_per_byte():
    """A byte's share of a row: slots are rounded up, tokens to the nearest."""
    executed = lambda model, unit, context: per_byte(  # noqa: E731
        model, patch_size=unit, context_bytes=context, convention="executed"
    )
    share = lambda row, size: [value / size for value in dataclasses.astuple(row)]  # noqa: E731
    assert list(dataclasses.astuple(executed(BLT, 4.5, 64))) == share(executed_row(BLT, 64, 15), 64)
    assert list(dataclasses.astuple(executed(LM, 9.9, 64))) == share(executed_row(LM, 64), 64)
    tokens = CASES["tokens"][0]
    for unit, nearest in ((4.4, 15), (4.9, 13)):
        assert list(dataclasses.astuple(executed(tokens, unit, 64))) == share(executed_row(tokens, nearest), 64)
    for slots in range(1, 1000):
        assert executed(BLT, 4093 / slots, 4093).latent == executed_row(BLT, 4093, slots).latent / 4093


def test_differences_by_hand():
    """Rows of 64 bytes and 17 slots, where the architecture needs 16: every line but the head does more or less."""
    model = blt(slots=3, cross_kv_heads=2)
    found = differences(model, patch_size=64 / 17, context_bytes=64)
    keys = lambda total, window: sum(min(i + 1, window) for i in range(total))  # noqa: E731
    encoder = 2 * 4 * 16 * (64 * 64 - keys(64, 8)) / 64  # one block of keys holds the whole row
    latent = 3 * 4 * 24 * (24 * 24 - keys(17, 17)) / 64  # and one of 24 the patches
    assert found["encoder"] == found["decoder"] == pytest.approx(encoder)
    assert found["latent"] == pytest.approx(latent)
    assert found["pooling"] == pytest.approx(-2 * 3 * 16) and found["head"] == 0
    assert found["total"] == pytest.approx(2 * encoder + latent - 2 * 3 * 16)
    ragged = differences(model, patch_size=64 / 16.5, context_bytes=64)
    half = 0.5 / 64  # of a slot, per byte
    assert ragged["decoder"] - encoder == pytest.approx(half * (2 * 24 * 3 * 16 + 2 * 4 * 3 * 16 * 8))
    assert ragged["pooling"] + 2 * 3 * 16 == pytest.approx(half * (2 * 16 * 3 * 16 + 4 * 3 * 16 * 16))


@pytest.mark.parametrize("positions, slots", [(0, 4), (64.5, 4), (64, 0), (64, 3.5), (float("nan"), 4)])
def test_rows_are_whole(positions, slots):
    with pytest.raises(ConfigError, match="whole number of them, at least 1"):
        executed_row(BLT, positions, slots)


def test_other_bad_rows():
    with pytest.raises(ConfigError, match="remat = 'half': can count none, full"):
        executed_row(LM, 64, remat="half")
    with pytest.raises(ConfigError, match="attention = 'splash': can count blockwise, banded"):
        executed_row(LM, 64, attention="splash")
    for model in (BLT, LM):
        with pytest.raises(ConfigError, match="positions = 64.5"):
            per_byte(model, patch_size=4.0, context_bytes=64.5, convention="executed")
