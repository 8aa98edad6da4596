"""The paper's table of FLOPs per byte, and the exact convention against hand counts."""

import pytest

from blt_jax.config import Blt, ConfigError, Lm, Stack
from blt_jax.flops import match, per_byte
from blt_jax.presets import preset

# blt.md, section 10: forward FLOPs per byte with the shapes of Table 10; printed to three digits.
TABLE = {
    "400m": (4.16e8, 3.82e8, 3.16e8, 2.69e8, 3.15e8, 3.14e8),
    "1b": (1.01e9, 9.24e8, 7.61e8, 6.43e8, 7.35e8, 7.77e8),
    "2b": (1.43e9, 1.29e9, 1.04e9, 8.49e8, 1.13e9, 1.23e9),
    "4b": (2.49e9, 2.23e9, 1.74e9, 1.37e9, 2.13e9, 2.39e9),
    "8b": (3.87e9, 3.45e9, 2.63e9, 2.03e9, 3.39e9, 3.87e9),
}
COLUMNS = [("blt", 4.0), ("blt", 4.5), ("blt", 6.0), ("blt", 8.0), ("llama3", 4.4), ("llama2", 3.7)]


@pytest.mark.parametrize("size", TABLE)
def test_paper_table(size):
    context = 16384 if size == "8b" else 8192
    for (family, unit), expected in zip(COLUMNS, TABLE[size], strict=True):
        found = per_byte(preset(f"{family}-{size}"), patch_size=unit, context_bytes=context, convention="paper").total
        assert abs(found / expected - 1) < 0.005, f"{family}-{size} at {unit}: {found:.4g}, table {expected:.3g}"


def test_entropy_model_per_byte():
    found = per_byte(preset("entropy-100m"), patch_size=1, context_bytes=8192, convention="paper").total
    assert abs(found / 2.10e8 - 1) < 0.005


def test_exact_lm_by_hand():
    lm = Lm(Stack(2, 8, 2, kv_heads=1, ffn=12), vocab=50, unit="token")
    # per layer and token: q, o 2*8*8 each; k, v 2*8*4 each; scores and values 4*8*mean(1..10); three 8 x 12
    layer = 2 * 128 + 2 * 64 + 4 * 8 * 5.5 + 3 * 2 * 8 * 12
    expected = (2 * layer + 2 * 8 * 50) / 4
    assert per_byte(lm, patch_size=4.0, context_bytes=40, convention="exact").total == expected


def test_exact_window_average():
    one = lambda window: per_byte(  # noqa: E731
        Lm(Stack(1, 8, 2, window=window, ffn=8)), patch_size=1, context_bytes=10, convention="exact"
    ).latent
    assert one(3) - one(1) == pytest.approx(4 * 8 * ((1 + 2 + 3 * 8) / 10 - 1))
    assert one(0) == one(10) == one(99)


def test_lines_of_spacebyte():
    local = Stack(1, 16, 2, window=8, ffn=24)
    blt = Blt(local, Stack(1, 16, 2, ffn=24), local, encoder_cross="none", decoder_cross="none", hash_sizes=())
    found = per_byte(blt, patch_size=4.0, context_bytes=64, convention="exact")
    assert found.pooling == 0 and found.encoder > 0
    assert found.decoder == found.encoder + 2 * 16 * 16 / 4  # one projection per patch back to bytes


def test_unknown_convention():
    with pytest.raises(ConfigError, match="paper, exact"):
        per_byte(preset("entropy-100m"), patch_size=1, context_bytes=8, convention="papre")


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="'blt-1b'"):
        preset("blt-1bb")


def test_budget_buys_whole_steps():
    lm = Lm(Stack(1, 8, 2, ffn=8))
    forward = per_byte(lm, patch_size=1, context_bytes=64, convention="exact").total
    how = dict(bytes_per_unit=1.0, context_bytes=64, convention="exact", bytes_per_step=100)
    found = match.budget_run(lm, budget=3 * forward * 1040, **how)
    assert found.steps == 10 and found.bytes == 1000 and abs(found.mismatch + 40 / 1040) < 1e-9
    with pytest.raises(ConfigError, match="too small for one step"):
        match.budget_run(lm, budget=forward, **how)
