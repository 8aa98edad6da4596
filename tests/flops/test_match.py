"""Budgets -> whole steps, for models that read bytes, tokens and patches alike."""

import dataclasses

import pytest

from blt_jax.config import Blt, ConfigError, Lm, Stack
from blt_jax.flops import match, per_byte

LM = Lm(Stack(1, 8, 2, ffn=8))
TOKENS = Lm(Stack(1, 8, 2, ffn=8), vocab=50, unit="token")
LOCAL = Stack(1, 16, 2, window=8, ffn=24)
BLT = Blt(LOCAL, Stack(2, 16, 2, ffn=24), LOCAL)


def bought(model, budget, bytes_per_unit=4.0, convention="exact", bytes_per_step=100.0):
    how = dict(bytes_per_unit=bytes_per_unit, context_bytes=64, convention=convention, bytes_per_step=bytes_per_step)
    return match.budget_run(model, budget=budget, **how)


@pytest.mark.parametrize("convention", ["paper", "exact"])
@pytest.mark.parametrize("model", [LM, TOKENS, BLT])
def test_training_costs_three_forwards_of_the_realised_bytes(model, convention):
    forward = per_byte(model, patch_size=4.0, context_bytes=64, convention=convention).total
    found = bought(model, 3 * forward * 1040, convention=convention)
    assert (found.steps, found.bytes) == (10, 1000.0), "10.4 steps round to 10"
    assert found.flops == pytest.approx(3 * forward * 1000)
    assert found.mismatch == pytest.approx(-40 / 1040)


def test_rounds_up_too():
    forward = per_byte(LM, patch_size=1, context_bytes=64, convention="exact").total
    found = bought(LM, 3 * forward * 160)
    assert found.steps == 2 and found.mismatch == pytest.approx(40 / 160)


def test_cheaper_units_buy_more_bytes():
    assert bought(BLT, 1e9, 8.0).bytes > bought(BLT, 1e9, 4.0).bytes
    assert bought(LM, 1e9, 8.0) == bought(LM, 1e9, 4.0), "a byte LM has no unit but the byte"


def test_half_a_step_is_refused_and_the_message_says_what_to_change():
    forward = per_byte(LM, patch_size=1, context_bytes=64, convention="exact").total
    with pytest.raises(ConfigError, match="too small for one step.*raise budgets, or lower train.rows") as error:
        bought(LM, 3 * forward * 49)
    assert f"{3 * forward * 100:.3g} FLOPs" in str(error.value) and "\n" not in str(error.value)


def test_a_match_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        bought(LM, 1e9).steps = 1
