"""Peaks by the names that jax gives devices; no figure for what is not known."""

import pytest

from blt_jax.config import ConfigError
from blt_jax.flops.hardware import DEVICES, by_kind, by_name, mfu, peak

ISSUED = ("tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e", "tpu-v7x", "a100-80gb", "h100", "h200", "b200")


@pytest.mark.parametrize(
    "kind, flops, gibibytes",
    [
        ("TPU v4", 275e12, 32),
        ("TPU v5 lite", 197e12, 16),
        ("TPU v5", 459e12, 95),
        ("TPU v5p", 459e12, 95),
        ("TPU v6 lite", 918e12, 32),
        ("TPU7x", 2307e12 / 2, 192 / 2),  # a chip is two devices
        ("NVIDIA A100-SXM4-80GB", 312e12, 80e9 / 2**30),
        ("NVIDIA H100 80GB HBM3", 989e12, 80e9 / 2**30),
        ("NVIDIA H100 PCIe", 756e12, 80e9 / 2**30),
        ("NVIDIA H200", 989e12, 141e9 / 2**30),
        ("NVIDIA B200", 2250e12, 180e9 / 2**30),
    ],
)
def test_known(kind, flops, gibibytes):
    assert peak(kind, "bfloat16") == flops
    assert by_kind(kind).hbm_bytes == pytest.approx(gibibytes * 2**30)


def test_tpus_agree_with_the_table_that_jax_keeps():
    """jax's own figures, per TensorCore and rounded: within 4% of Google's pages, bandwidth of v5p
    within 13%.
    """
    tpu_info = pytest.importorskip("jax._src.pallas.mosaic.tpu_info")
    for name, cores in (
        ("tpu-v4", 2),
        ("tpu-v5e", 1),
        ("tpu-v5p", 2),
        ("tpu-v6e", 1),
        ("tpu-v7x", 1),
    ):
        device = by_name(name)
        theirs = tpu_info._get_tpu_info_impl(
            tpu_info.chip_version_from_device_kind(device.kinds[0]), 1
        )
        assert device.peaks["bfloat16"] == pytest.approx(
            cores * theirs.bf16_ops_per_second, rel=0.01
        )
        assert device.hbm_bytes == pytest.approx(cores * theirs.hbm_capacity_bytes, rel=0.02)
        assert device.hbm_bandwidth == pytest.approx(
            cores * theirs.mem_bw_bytes_per_second, rel=0.13
        )


def test_every_row_is_whole():
    assert {device.name for device in DEVICES} >= set(ISSUED)
    kinds = [kind.lower() for device in DEVICES for kind in device.kinds]
    assert len(kinds) == len(set(kinds)), "a kind names one device"
    for device in DEVICES:
        assert by_name(device.name) is device and all(
            by_kind(kind) is device for kind in device.kinds
        )
        assert device.source and "bfloat16" in device.peaks and device.hbm_bandwidth > 5e11
        ladder = [device.peaks[a] for a in ("fp32", "tf32", "bfloat16", "fp8") if a in device.peaks]
        assert ladder == sorted(ladder), "narrower arithmetic is not slower"


@pytest.mark.parametrize(
    "kind",
    [
        "cpu",
        "TPU v51",
        "TPU v4 lite",
        "TPU7",
        "NVIDIA H100",
        "NVIDIA H100 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA H200 NVL",
        "NVIDIA GB200",
        "NVIDIA A100",
    ],
)
def test_unknown_has_no_mfu(kind):
    assert (
        by_kind(kind) is None
        and peak(kind, "bfloat16") is None
        and mfu(1e12, kind, "bfloat16") is None
    )


def test_unpublished_arithmetic_has_no_mfu():
    assert mfu(1e12, "TPU v4", "fp8") is None
    assert mfu(1e12, "NVIDIA H100 80GB HBM3", "float32") is None, (
        "tf32 or fp32: a dtype does not tell"
    )
    assert (
        peak("NVIDIA H100 80GB HBM3", "tf32") == 494.5e12
        and peak("NVIDIA H100 80GB HBM3", "fp32") == 67e12
    )


def test_share_of_all_devices():
    assert mfu(275e12, "TPU v4", "bfloat16", devices=4) == 0.25


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="'tpu-v5p'") as error:
        by_name("tpu-v5")
    assert "\n" not in str(error.value)
    assert by_name("TPU-v5e").name == "tpu-v5e"
