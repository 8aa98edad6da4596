"""Logical axis -> mesh axis, one table, applied to parameters, optimiser state and batches."""

import contextlib
import logging

import jax
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

RULES = {
    "embed": "fsdp",
    "slots": "fsdp",
    "hash_embed": "fsdp",
    "vocab": "tensor",
    "mlp": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "batch": ("data", "fsdp"),
}

log = logging.getLogger(__name__)


@contextlib.contextmanager
def context(mesh):
    """Makes `mesh` and the table known to kernels that run per device (`nn/splash.py`), while a program is traced."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(tuple(RULES.items())):
        yield


def _size(mesh, axes):
    size = 1
    for axis in (axes,) if isinstance(axes, str) else axes:
        size *= mesh.shape[axis]
    return size


def sharding(mesh, logical, shape, name=""):
    """NamedSharding of one array. A dimension that its mesh axis does not divide stays whole and is logged."""
    spec, used = [], set()
    for dimension, axis in zip(shape, logical, strict=True):
        target = RULES.get(axis)
        if target is None or target in used or _size(mesh, target) == 1:
            spec.append(None)
        elif dimension % _size(mesh, target):
            log.warning("%s: axis %s of size %d is not split over %s", name, axis, dimension, target)
            spec.append(None)
        else:
            spec.append(target)
            used.add(target)
    return NamedSharding(mesh, PartitionSpec(*spec))


def parameter_shardings(mesh, shapes, logical_axes):
    """Tree of NamedShardings for a parameter tree; `logical_axes` as from `models.logical_axes`."""

    def one(path, shape, logical):
        padded = tuple(logical) + (None,) * (len(shape.shape) - len(logical))
        return sharding(mesh, padded, shape.shape, jax.tree_util.keystr(path))

    return jax.tree_util.tree_map_with_path(one, shapes, logical_axes)


def everywhere(mesh):
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def row_devices(mesh):
    """How many ways the rows of a batch are split."""
    return _size(mesh, RULES["batch"])


def batch_sharding(mesh):
    """Rows over `data` and `fsdp`; also serves any array whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(RULES["batch"]))
