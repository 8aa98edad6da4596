"""The executed convention against the program, to the unit in its jaxpr: every flag, on small
models.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from blt_jax.config import ConfigError, Stack
from blt_jax.families import head, network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import executed_row, per_byte, trace
from blt_jax.flops.executed import ATTENTION_BLOCK, ATTENTION_SPAN, ATTENTIONS, HEAD_LOGITS
from blt_jax.nn import attention, blockwise
from tests.flops.programs import B, forward, shapes, with_gradient

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
    "tokens, a head in three parts": (Lm(LATENT, vocab=2**22, unit="token"), 17, 0),
    "blt, hashed and tied": (
        blt(hash_sizes=(3, 5), tied=True, hash_norm=True, hash_short="omit"),
        21,
        6,
    ),
    "blt, no projection, one patch, a long window": (
        blt(slots=2, latent=dataclasses.replace(LATENT, width=32), **local(window=64, kv_heads=4)),
        21,
        1,
    ),
    "blt, windowed latent, more slots than bytes": (
        blt(
            latent=dataclasses.replace(LATENT, window=4), pool_from="embeddings", **local(layers=1)
        ),
        9,
        20,
    ),
}
for slots, encoder_cross in enumerate(("none", "last", "all"), 1):
    for more, decoder_cross in enumerate(("none", "first", "all")):
        how = dict(slots=min(slots + more, 4), cross_heads=8, cross_kv_heads=2**slots)
        crossed = blt(encoder_cross=encoder_cross, decoder_cross=decoder_cross, **how)
        CASES[f"blt, {encoder_cross}, {decoder_cross}"] = (crossed, 21, 6)


def check(name, program, **how):
    model, positions, slots = CASES[name]
    found = trace.count(program(model, **how), *shapes(model, positions, slots))
    expected = executed_row(model, positions, slots, training=program is with_gradient, **how)
    assert not found.unknown
    assert found.flops == B * expected.total, f"off by {found.flops - B * expected.total}"
    assert all(type(value) is int for value in expected.as_dict().values())


# Of the nine pairs of cross-attentions three are quick: each form once.
SLOW = {
    f"blt, {encoder}, {decoder}"
    for encoder in ("none", "last", "all")
    for decoder in ("none", "first", "all")
} - {"blt, none, none", "blt, last, all", "blt, all, first"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES]
)
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
        attend = lambda q, k, v, segment: attention.attend(q, k, v, segment, window, backend)  # noqa: B023
        loss = lambda *args: attend(*args).sum()  # noqa: B023
        model = Lm(Stack(1, H * C, H, kv_heads=G, ffn=1, window=window))
        for training, program in ((False, attend), (True, jax.value_and_grad(loss, (0, 1, 2)))):
            found = trace.count(jax.jit(program), q, kv, kv, segment).flops
            latent = executed_row(model, length, training=training, attention=backend).latent
            dense = length * (3 if training else 1) * (2 * H * C * C * (2 * H + 2 * G) + 6 * H * C)
            assert found == B * (latent - dense), (window, training)


def test_what_the_formulas_know_of_attention():
    assert (ATTENTION_BLOCK, ATTENTION_BLOCK, ATTENTION_SPAN) == (
        attention.BLOCK,
        blockwise.BLOCK,
        blockwise.SPAN,
    )
    assert HEAD_LOGITS == head.LOGITS
    assert ATTENTIONS[0] == network.Compute().attention


@pytest.mark.parametrize("backend", ATTENTIONS)
@pytest.mark.parametrize("program", [forward, with_gradient])
def test_no_array_pairs_bytes_with_bytes_or_patches(program, backend):
    """Memory is O(L), except for the latent model's P x P scores (design: no byte x patch
    array).
    """
    positions, slots = 8192, 2048
    model = blt(encoder_cross="all", slots=1, **local(heads=2, kv_heads=1, window=32))
    model = dataclasses.replace(model, latent=Stack(1, 8, 1, ffn=8))
    elements, shape = trace.count(
        program(model, attention=backend), *shapes(model, positions, slots)
    ).largest
    assert B * positions * 260 <= elements < B * positions * slots / 2, shape


def test_full_attention_is_seen_to_pair_positions():
    elements, _ = trace.count(
        forward(lm(window=0), attention="banded"), *shapes(lm(window=0), 512, 0)
    ).largest
    assert elements == B * 4 * 512**2


def test_rows_of_per_byte():
    """A byte's share of a row: slots are rounded up, tokens to the nearest."""
    executed = lambda model, unit, context: per_byte(
        model, patch_size=unit, context_bytes=context, convention="executed"
    )
    share = lambda row, size: [value / size for value in dataclasses.astuple(row)]
    assert list(dataclasses.astuple(executed(BLT, 4.5, 64))) == share(executed_row(BLT, 64, 15), 64)
    assert list(dataclasses.astuple(executed(LM, 9.9, 64))) == share(executed_row(LM, 64), 64)
    tokens = CASES["tokens"][0]
    for unit, nearest in ((4.4, 15), (4.9, 13)):
        assert list(dataclasses.astuple(executed(tokens, unit, 64))) == share(
            executed_row(tokens, nearest), 64
        )
    for slots in range(1, 1000):
        assert (
            executed(BLT, 4093 / slots, 4093).latent == executed_row(BLT, 4093, slots).latent / 4093
        )


@pytest.mark.parametrize(
    "positions, slots", [(0, 4), (64.5, 4), (64, 0), (64, 3.5), (float("nan"), 4)]
)
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
