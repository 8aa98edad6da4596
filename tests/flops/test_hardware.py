"""Peaks by the names that jax gives devices; no figure for what is not known."""

import pytest

from blt_jax.flops.hardware import mfu, peak


@pytest.mark.parametrize(
    "kind, flops",
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v6 lite", 918e12), ("NVIDIA H100 80GB HBM3", 989e12)],
)
def test_known(kind, flops):
    assert peak(kind, "bfloat16") == flops


def test_unknown_has_no_mfu():
    assert peak("TPU v51", "bfloat16") is None and peak("cpu", "bfloat16") is None
    assert mfu(1e12, "TPU v4", "float32") is None


def test_share_of_all_devices():
    assert mfu(275e12, "TPU v4", "bfloat16", devices=4) == 0.25
