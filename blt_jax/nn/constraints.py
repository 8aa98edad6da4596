"""Where an array lies on the devices, by the names of its axes.

The mesh and the table from names to mesh axes come from the context
(`parallel/sharding.context`), so that a model names axes and never sees a mesh. Without a context
every array is whole and nothing here does anything.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from blt_jax.config import split_over

log = logging.getLogger(__name__)


def spec(names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec:
    """PartitionSpec of an array: one name (or None: whole) per dimension. What does not divide
    stays whole.
    """
    mesh, spread = jax.sharding.get_abstract_mesh(), []
    # Other axes are those of a shard_map around us.
    automatic = [kind == AxisType.Auto for kind in mesh.axis_types]
    free = {
        axis: mesh.shape[axis]
        for axis, ours in zip(mesh.axis_names, automatic, strict=True)
        if ours
    }
    for size, name, axes in zip(
        shape, names, nn.logical_to_mesh_axes(names) or (None,) * len(names), strict=True
    ):
        requested = {
            axis: free[axis]
            for axis in ((axes,) if isinstance(axes, str) else axes or ())
            if axis in free
        }
        taken = split_over(size, requested)
        if len(taken) < sum(n > 1 for n in requested.values()):
            _warn(name, size, tuple(requested.items()), taken)
        spread.append(taken or None)
    return PartitionSpec(*spread)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, laid over the devices as its axes' names say; itself without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names, x.shape))


def by_rows(f: Callable[..., jax.Array], weights: Any, *arrays: jax.Array) -> jax.Array:
    """f(weights, *arrays): each device on its own rows, the first axis of arrays and result, with
    whole `weights`.

    `weights` are gathered before, and their gradient is summed over devices after whatever loops f
    has.
    """
    mesh = jax.sharding.get_abstract_mesh()
    rows = None if mesh.empty else spec(("batch",), arrays[0].shape[:1])[0]
    if rows is None:
        return f(weights, *arrays)
    rows = (rows,) if isinstance(rows, str) else rows

    def on_device(weights, *arrays):
        return f(jax.lax.pcast(weights, rows, to="varying"), *arrays)

    specs = (PartitionSpec(), *(PartitionSpec(rows) for _ in arrays))
    return jax.shard_map(
        on_device, in_specs=specs, out_specs=PartitionSpec(rows), axis_names=set(rows)
    )(weights, *arrays)


@functools.cache  # once for each
def _warn(name, size, requested, taken):
    over = taken or "none"
    log.warning(
        "activations: axis %s of size %d is split over %s, not all of %s",
        name,
        size,
        over,
        dict(requested),
    )
