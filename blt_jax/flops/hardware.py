"""What devices can do at most, by row of one table; and MFU against it. Unknown chip: None, never a
wrong figure.

Peaks are dense (no structured sparsity), in FLOP/s of one jax device, by what multiplies the
matrices: "bfloat16", "tf32" (tensor cores, operands rounded to 10 bits), "fp32" (CUDA cores),
"fp8", "int8" (operations/s). "float32" is none of them: jax multiplies float32 arrays in tf32 on
these GPUs and in bfloat16 passes on TPUs unless told otherwise, so that a dtype alone does not name
the peak. What a vendor does not publish is left out.
"""

import dataclasses
import difflib

from blt_jax.config import ConfigError

GIB = 2**30
TPU_PAGES = "docs.cloud.google.com/tpu/docs/"
A100_SHEET = "NVIDIA A100 data sheet (halved where it says 'with sparsity')"
H100_SHEET = "NVIDIA H100 data sheet (halved where it says 'with sparsity')"


@dataclasses.dataclass(frozen=True)
class Device:
    """One jax device."""

    name: str  # ours, for flags and plans
    # what jax calls it (`device_kind`), every spelling that is known to occur
    kinds: tuple[str, ...]
    peaks: dict[str, float]  # FLOP/s, dense, by arithmetic
    # capacity as published; a GPU's decimal GB are a few per cent less than the device reports
    hbm_bytes: int
    hbm_bandwidth: float  # bytes/s
    source: str


def _a100(name, kinds, gigabytes, bandwidth):
    peaks = {"bfloat16": 312e12, "tf32": 156e12, "fp32": 19.5e12, "int8": 624e12}
    return Device(name, kinds, peaks, gigabytes * 10**9, bandwidth, A100_SHEET)


_HOPPER_SXM = {"bfloat16": 989e12, "tf32": 494.5e12, "fp32": 67e12, "fp8": 1979e12, "int8": 1979e12}

DEVICES = (
    Device(
        "tpu-v4",
        ("TPU v4",),
        {"bfloat16": 275e12, "int8": 275e12},
        32 * GIB,
        1200e9,
        TPU_PAGES + "v4",
    ),
    Device(
        "tpu-v5e",
        ("TPU v5 lite", "TPU v5e"),
        {"bfloat16": 197e12, "int8": 393e12},
        16 * GIB,
        819e9,
        TPU_PAGES + "v5e",
    ),
    Device(
        "tpu-v5p",
        ("TPU v5", "TPU v5p"),
        {"bfloat16": 459e12, "fp8": 459e12},
        95 * GIB,
        2765e9,
        TPU_PAGES + "v5p",
    ),
    Device(
        "tpu-v6e",
        ("TPU v6 lite", "TPU v6e"),
        {"bfloat16": 918e12, "fp8": 918e12, "int8": 1836e12},
        32 * GIB,
        1638e9,
        TPU_PAGES + "v6e and tpu7x",
    ),
    Device(  # a chip is two jax devices: half of 2307 and 4614 TFLOP/s, of 192 GiB and of 7.4 TB/s
        "tpu-v7x",
        ("TPU7x",),
        {"bfloat16": 1153.5e12, "fp8": 2307e12},
        96 * GIB,
        3.7e12,
        TPU_PAGES + "tpu7x; bandwidth: jax/_src/pallas/mosaic/tpu_info.py",
    ),
    _a100("a100-40gb", ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 40, 1555e9),
    _a100("a100-80gb", ("NVIDIA A100-SXM4-80GB",), 80, 2039e9),
    _a100("a100-80gb-pcie", ("NVIDIA A100 80GB PCIe",), 80, 1935e9),
    Device(
        "h100", ("NVIDIA H100 80GB HBM3",), _HOPPER_SXM, 80 * 10**9, 3.35e12, H100_SHEET + ", SXM"
    ),
    Device(
        "h100-pcie",
        ("NVIDIA H100 PCIe",),
        {"bfloat16": 756e12, "tf32": 378e12, "fp32": 51e12, "fp8": 1513e12, "int8": 1513e12},
        80 * 10**9,
        2.0e12,
        H100_SHEET + ", PCIe",
    ),
    Device(
        "h200",
        ("NVIDIA H200",),
        _HOPPER_SXM,
        141 * 10**9,
        4.8e12,
        "NVIDIA H200 data sheet (likewise halved), SXM",
    ),
    Device(
        "b200",
        ("NVIDIA B200",),
        {"bfloat16": 2250e12, "tf32": 1100e12, "fp32": 75e12, "fp8": 4500e12, "int8": 4500e12},
        180 * 10**9,
        7.7e12,
        "NVIDIA Blackwell data sheet, one GPU of HGX B200 (halved where it says 'with sparsity')",
    ),
)


def by_name(name: str) -> Device:
    """The device that a flag or a plan names, such as "tpu-v5p" or "h100". Raises ConfigError with
    the nearest name.
    """
    matches = [device for device in DEVICES if device.name == str(name).lower()]
    if not matches:
        names = [device.name for device in DEVICES]
        near = difflib.get_close_matches(str(name).lower(), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise ConfigError(f"hardware = {name!r}: no such device; {hint}")
    return matches[0]


def by_kind(device_kind: str) -> Device | None:
    """The device that jax calls `device_kind`; None where it is not known.

    Only whole names count, for parts of a chip (MIG) and slower or larger boards begin with the
    same words.
    """
    return next((d for d in DEVICES if device_kind.lower() in map(str.lower, d.kinds)), None)


def peak(device_kind: str, arithmetic: str) -> float | None:
    """Peak FLOP/s of a device as jax names it, for an arithmetic of the table; None where it is not
    known.
    """
    device = by_kind(device_kind)
    return device.peaks.get(arithmetic) if device else None


def mfu(
    flops_per_second: float, device_kind: str, arithmetic: str, devices: int = 1
) -> float | None:
    """Model FLOPs utilisation: the share of the dense peak of `devices` devices that
    `flops_per_second` is.

    The FLOPs are the caller's: say their convention beside the figure. In "exact", training as 3 x
    forward, it is MFU as usually reported: causal averages, nothing recomputed, the head counted,
    the entropy model not. In "executed" with remat it is what some call HFU, hardware FLOPs
    utilisation. None for an unknown chip or arithmetic.
    """
    top = peak(device_kind, arithmetic)
    return None if top is None else flops_per_second / (top * devices)
