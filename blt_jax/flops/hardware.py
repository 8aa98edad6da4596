"""Peak FLOP/s of devices, dense, without sparsity; and MFU against them. An unknown chip has no MFU, never a wrong one.

MFU = FLOPs that a program does per second / peak of the devices it runs on, in a named FLOP convention.
"""

# Dense bfloat16 peak of one jax device, FLOP/s (a TPU v7x chip is two devices, 2307e12 together); keys are what jax
# calls the device (`device_kind`), in lower case. TPU: Google Cloud's system architecture pages; NVIDIA: data sheets
# (SXM parts).
BFLOAT16 = {
    "tpu v4": 275e12,
    "tpu v5 lite": 197e12,
    "tpu v5e": 197e12,
    "tpu v5": 459e12,
    "tpu v5p": 459e12,
    "tpu v6 lite": 918e12,
    "tpu v6e": 918e12,
    "tpu7x": 1153.5e12,
    "nvidia a100": 312e12,
    "nvidia h100": 989e12,
    "nvidia h200": 989e12,
    "nvidia b200": 2250e12,
}


def peak(device_kind, dtype):
    """Peak FLOP/s of a device as jax names it, for a dtype's name; None where it is not known."""
    if dtype != "bfloat16":
        return None
    kind = device_kind.lower()
    known = [name for name in BFLOAT16 if kind == name or kind.startswith(name + " ") or kind.startswith(name + "-")]
    return BFLOAT16[max(known, key=len)] if known else None


def mfu(flops_per_second, device_kind, dtype, devices=1):
    """Share of the peak that `flops_per_second` is; None for an unknown chip."""
    top = peak(device_kind, dtype)
    return None if top is None else flops_per_second / (top * devices)
