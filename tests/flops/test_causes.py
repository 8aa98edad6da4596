"""Each difference between conventions has a cause, and the causes of a line add up to the whole."""

import dataclasses

import pytest

from blt_jax.config import ConfigError, Stack
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import Breakdown, differences, executed_row, per_byte, training
from blt_jax.flops.causes import CAUSES
from blt_jax.flops.executed import ATTENTIONS
from tests.flops.test_executed import BLT, CASES, blt

ROUNDING = 1e-9  # of the total: sums of floats


def total(parts):
    """Line by line."""
    return {
        field.name: sum(getattr(p, field.name) for p in parts.values())
        for field in dataclasses.fields(Breakdown)
    }


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("convention", ["exact", "paper"])
@pytest.mark.parametrize("name", CASES)
def test_causes_add_up_line_by_line(name, convention, attention):
    model, positions, slots = CASES[name]
    tokens = isinstance(model, Lm) and model.unit == "token"
    context = 4 * positions if tokens else positions
    unit = (
        4.0 if tokens else context / (slots - 0.3 if slots > 1 else 1)
    )  # fewer patches than slots
    where = dict(patch_size=unit, context_bytes=context)
    theirs = per_byte(model, convention=convention, **where)
    for how in ({}, {"training": True}, {"training": True, "remat": "full"}):
        row = executed_row(model, positions, slots, attention=attention, **how)
        found = differences(model, convention=convention, attention=attention, **where, **how)
        assert (
            list(found) == [cause for cause in CAUSES if cause in found]
            and Breakdown() not in found.values()
        )
        for line, value in total(found).items():
            wanted = getattr(row, line) / context - (training if how else float)(
                getattr(theirs, line)
            )
            assert value == pytest.approx(wanted, abs=ROUNDING * row.total / context), (line, how)


def test_every_cause_occurs_and_only_where_it_should():
    how = dict(patch_size=64 / 16.5, context_bytes=64, convention="paper")
    narrow = Stack(2, 48, 4, kv_heads=2, window=8, ffn=100)
    odd = blt(encoder=narrow, decoder=narrow, latent=Stack(3, 24, 2, ffn=40), cross_kv_heads=2)
    assert set(differences(odd, training=True, remat="full", **how)) == set(CAUSES) - {"head again"}
    assert not {"scores again", "head again", "recomputation"} & set(differences(odd, **how))
    assert "scores again" not in differences(odd, training=True, attention="banded", **how)
    assert set(differences(odd, **how | {"convention": "exact"})) == {
        "whole units",
        "masked pairs",
        "elementwise",
    }
    plain = Stack(2, 24, 2, ffn=64)  # 8/3 of the width, all heads, no window
    lm = Lm(plain, vocab=50, unit="token")
    assert set(differences(lm, **how | {"patch_size": 4.0}, attention="banded")) == {"masked pairs"}
    assert set(differences(Lm(plain), **how, attention="banded")) == {
        "masked pairs",
        "byte vocabulary",
    }
    large = Lm(
        plain, vocab=2**22, unit="token"
    )  # a row of 16 has twice the logits that may exist at a time
    assert set(
        differences(large, **how | {"patch_size": 4.0}, training=True, attention="banded")
    ) >= {"head again"}
    everywhere = Blt(
        *[dataclasses.replace(plain, window=w) for w in (8, 0, 8)], encoder_cross="all"
    )
    assert "cross layers" not in differences(everywhere, **how)


def test_differences_by_hand():
    """Rows of 64 bytes and 17 slots, where the architecture needs 16: every line but the head does
    more or less.
    """
    model = blt(slots=3, cross_kv_heads=2)
    by_line = lambda unit: total(differences(model, patch_size=unit, context_bytes=64))
    found = by_line(64 / 17)
    keys = lambda total, window: sum(min(i + 1, window) for i in range(total))
    encoder = 2 * 4 * 16 * (64 * 64 - keys(64, 8)) / 64  # one block of keys holds the whole row
    latent = 3 * 4 * 24 * (24 * 24 - keys(17, 17)) / 64  # and one of 24 the patches
    assert found["encoder"] == found["decoder"] == pytest.approx(encoder)
    assert found["latent"] == pytest.approx(latent)
    assert found["pooling"] == pytest.approx(-2 * 3 * 16) and found["head"] == 0
    assert sum(found.values()) == pytest.approx(2 * encoder + latent - 2 * 3 * 16)
    ragged = by_line(64 / 16.5)
    half = 0.5 / 64  # of a slot, per byte
    assert ragged["decoder"] - encoder == pytest.approx(
        half * (2 * 24 * 3 * 16 + 2 * 4 * 3 * 16 * 8)
    )
    assert ragged["pooling"] + 2 * 3 * 16 == pytest.approx(
        half * (2 * 16 * 3 * 16 + 4 * 3 * 16 * 16)
    )


def test_bad_conventions_are_refused():
    for bad in ("executed", "papre"):
        with pytest.raises(ConfigError, match="told from paper or exact"):
            differences(BLT, patch_size=4.0, context_bytes=64, convention=bad)
