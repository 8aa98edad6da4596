"""The device mesh: axes `data`, `fsdp`, `tensor`."""

from collections.abc import Sequence

import jax
import numpy as np

from blt_jax.config import ConfigError, Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A jax Mesh over `devices` (default: all). Raises ConfigError when the axes do not multiply to
    their number.
    """
    grid = np.array(jax.devices() if devices is None else devices)
    sizes = [getattr(config, axis) for axis in AXES]
    known = int(np.prod([s for s in sizes if s != -1]))
    sizes = [grid.size // known if s == -1 else s for s in sizes]
    if int(np.prod(sizes)) != grid.size:
        shape = " x ".join(f"{axis}={getattr(config, axis)}" for axis in AXES)
        raise ConfigError(f"mesh = {shape}: does not fit {grid.size} devices; set one axis to -1")
    return jax.sharding.Mesh(
        grid.reshape(sizes), AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES)
    )
