"""Where an array lies on the devices, by the names of its axes.

The mesh and the table from names to mesh axes come from the context (`parallel/rules.context`), so that a model names
axes and never sees a mesh. Without a context every array is whole and nothing here does anything.
"""

import functools
import logging

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

from blt_jax.config import split_over

log = logging.getLogger(__name__)


def spec(names, shape):
    """PartitionSpec of an array: one name (or None: whole) per dimension. What does not divide stays whole."""
    mesh = jax.sharding.get_abstract_mesh()
    found = []
    for size, name, axes in zip(shape, names, nn.logical_to_mesh_axes(names) or (None,) * len(names), strict=True):
        asked = {axis: mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ())}
        taken = split_over(size, asked)
        if len(taken) < sum(n > 1 for n in asked.values()):
            _tell(name, size, tuple(asked.items()), taken)
        found.append(taken or None)
    return PartitionSpec(*found)


def constrain(x, *names):
    """`x`, laid over the devices as its axes' names say; itself without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(names, x.shape))


@functools.cache  # once for each
def _tell(name, size, asked, taken):
    over = taken or "none"
    log.warning("activations: axis %s of size %d is split over %s, not all of %s", name, size, over, dict(asked))
