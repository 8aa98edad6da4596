"""Logical axis -> mesh axes: one table for parameters, optimiser state, batches and activations."""

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from blt_jax.config import split_over

BATCH = ("data", "fsdp")  # mesh axes that share out the rows of a batch

# Names that are missing here stay whole, as does the last width of activations ("length", "layers",
# "norm", ...).
RULES: dict[str, str | tuple[str, ...]] = {
    # parameters: widths over fsdp, what may be computed apart over tensor
    "embed": "fsdp",
    "slots": "fsdp",
    "vocab": "tensor",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    # tables that are looked up, hash tables most of all, by columns over all devices
    # (`sharded_embedding.py`)
    "columns": ("tensor", *BATCH),
    # batches and activations; heads, mlp and vocab lie as the parameters that make them
    "batch": BATCH,
}

AnyMesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

log = logging.getLogger(__name__)


@contextlib.contextmanager
def context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Makes `mesh` and the table known to what names its axes (`nn/constraints.py`), while a
    program is traced.
    """
    with (
        jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
        nn.logical_axis_rules(list(RULES.items())),
    ):
        yield


def _axes(mesh, logical):
    """{mesh axis: devices} that the table gives a logical axis."""
    target = RULES.get(logical, ())
    return {axis: mesh.shape[axis] for axis in ((target,) if isinstance(target, str) else target)}


def split(mesh: AnyMesh, logical: str | None, size: int) -> tuple[str, ...]:
    """The mesh axes that a dimension of so many is split over: those of the table, as far as they
    divide it.
    """
    return split_over(size, _axes(mesh, logical))


def sharding(
    mesh: jax.sharding.Mesh, logical: Sequence[str | None], shape: Sequence[int], name: str = ""
) -> NamedSharding:
    """NamedSharding of one array. A dimension that its mesh axes do not divide is logged by
    name.
    """
    spec: list[tuple[str, ...] | None] = []
    used: set[str] = set()
    for dimension, axis in zip(shape, logical, strict=True):
        requested = {} if used & set(_axes(mesh, axis)) else _axes(mesh, axis)
        taken = split_over(dimension, requested)
        used.update(taken)
        if len(taken) < sum(size > 1 for size in requested.values()):
            _warn(name, axis, dimension, taken, tuple(requested.items()))
        spec.append(taken or None)
    return NamedSharding(mesh, PartitionSpec(*spec))


@functools.cache  # once for each
def _warn(name, axis, dimension, taken, requested):
    log.warning(
        "%s: axis %s of size %d is split over %s, not all of %s",
        name,
        axis,
        dimension,
        taken or "none",
        dict(requested),
    )


def parameter_shardings(mesh: jax.sharding.Mesh, shapes: Any, logical_axes: Any) -> Any:
    """Tree of NamedShardings for a parameter tree and its `network.logical_axes`."""

    def placed(path, shape, logical):
        return sharding(mesh, _padded(logical, shape), shape.shape, jax.tree_util.keystr(path))

    return jax.tree_util.tree_map_with_path(placed, shapes, logical_axes)


def everywhere(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def _padded(logical, shape):
    return tuple(logical) + (None,) * (len(shape.shape) - len(logical))


def moment_sharding(
    mesh: jax.sharding.Mesh, moment: Any, shape: Any, logical: Any
) -> NamedSharding:
    """NamedSharding of a parameter's optimiser state, also where it has lost dimensions (factored
    moments).

    A dimension lies as the parameter's dimension of the same size, matched in order; one that
    matches none is whole.
    """
    axes, dimensions = [], iter(zip(shape.shape, _padded(logical, shape), strict=True))
    for size in moment.shape:
        axes.append(next((axis for of, axis in dimensions if of == size), None))
    return sharding(mesh, axes, moment.shape, "optimiser state")


def row_devices(mesh: AnyMesh) -> int:
    """How many ways the rows of a batch are split."""
    size = 1
    for axis in BATCH:
        size *= mesh.shape[axis]
    return size


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows over `data` and `fsdp`; also serves any array whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH))
