"""The device mesh: axes `data`, `fsdp`, `tensor`."""

from collections.abc import Sequence

import jax
import numpy as np

from blt_jax.config import Mesh

AXES = ("data", "fsdp", "tensor")


def make_mesh(config: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A jax Mesh over `devices` (default: all). Raises ConfigError where the axes do not fit their
    number.
    """
    array = np.array(jax.devices() if devices is None else devices)
    return jax.sharding.Mesh(
        array.reshape(config.sizes(array.size)),
        AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
    )
