"""Devices of a TPU slice on a machine without one: by libtpu's compiler, or forced host devices in
its stead.

Call `devices` before jax has made any device in the process: both ways are set by environment
variables.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.flops import hardware

# Prefix of a topology's name: (row of the hardware table, jax devices per chip).
SLICES = {
    "v5e": ("tpu-v5e", 1),
    "v5p": ("tpu-v5p", 1),
    "v6e": ("tpu-v6e", 1),
    "tpu7x": ("tpu-v7x", 2),
}
HOST_DEVICES = 1024  # more forced host devices than this take long to start


@dataclasses.dataclass(frozen=True)
class Topology:
    """`v5p:2x2x4`: a kind of chip and how many along each axis of the slice."""

    name: str
    hardware: hardware.Device
    devices: int


def parse(name: str) -> Topology:
    """Raises ConfigError, with an example, for a name that is no topology."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if not match or match[1] not in SLICES:
        raise ConfigError(
            f"compile = {name!r}: write KIND:CHIPS such as v5e:4x4 or v5p:2x2x4; kinds: "
            f"{', '.join(SLICES)}"
        )
    row, per_chip = SLICES[match[1]]
    chips = math.prod(int(n) for n in match[2].split("x"))
    return Topology(name, hardware.by_name(row), chips * per_chip)


def has_compiler() -> bool:
    """Whether libtpu is installed (`pip install 'blt-jax[tpu]'`)."""
    return importlib.util.find_spec("libtpu") is not None


def devices(topology: Topology) -> tuple[Sequence[Any], bool]:
    """(jax devices, whether they are the TPU's own). Raises ConfigError for a shape that the slice
    cannot have.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    if has_compiler():
        # libtpu would ask a metadata server, and look for a host of its own; any accelerator type
        # serves.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_WORKER_ID", "0")
        import jax
        from jax.experimental import topologies

        try:
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=topology.name
            ).devices
        except jax.errors.JaxRuntimeError as error:
            raise ConfigError(
                f"compile = {topology.name!r}: {str(error).splitlines()[0]}"
            ) from None
        return described, True
    if topology.devices > HOST_DEVICES:
        raise ConfigError(
            f"compile = {topology.name!r}: without libtpu at most {HOST_DEVICES} devices; install "
            "blt-jax[tpu]"
        )
    forced = f"--xla_force_host_platform_device_count={topology.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {forced}".strip()
    import jax

    return jax.devices()[: topology.devices], False
