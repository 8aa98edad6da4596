"""Lookup in embedding tables whose columns are split over the devices; no device sees a whole table
or its gradient.

Each device looks its own columns up for the rows of all, and an all-to-all brings every row home
with all its columns: what travels is row numbers and embedded bytes. Under plain `jit` XLA moves
the embedded bytes of the whole batch to every device. The backward pass is the transposed
all-to-all and a scatter into the device's own columns; only where a table is whole along a mesh
axis (`sharding.split`) is its gradient summed over it.
"""

import functools
import logging
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from blt_jax.parallel import sharding

log = logging.getLogger(__name__)


def lookup(
    plain: Callable[..., jax.Array], table_RxE: jax.Array, ids_TxBxL: jax.Array, dtype: DTypeLike
) -> jax.Array:
    """`plain(table_RxE, ids_TxBxL, dtype)` -> [B, L, E] under the mesh of the context; without one,
    just that.

    The result's rows lie as a batch's, its columns over `tensor` where the table's do. Rows that
    the devices cannot share out equally are left to XLA, with a word.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return plain(table_RxE, ids_TxBxL, dtype)
    if ids_TxBxL.shape[1] % sharding.row_devices(mesh):
        _warn(ids_TxBxL.shape[1], sharding.row_devices(mesh))
        return plain(table_RxE, ids_TxBxL, dtype)
    rows = tuple(axis for axis in sharding.BATCH if mesh.shape[axis] > 1)
    columns = sharding.split(mesh, "columns", table_RxE.shape[1])
    # axes over which rows and columns change places
    shared = tuple(axis for axis in rows if axis in columns)
    whole = tuple(axis for axis in rows if axis not in columns)
    kept = tuple(axis for axis in columns if axis not in rows)

    def on_device(table, ids):
        if whole:
            table = jax.lax.pcast(table, whole, to="varying")  # its transpose sums the gradient
        if not shared:
            return plain(table, ids, dtype)
        ids = jax.lax.all_gather(ids, shared, axis=1, tiled=True)
        return jax.lax.all_to_all(
            plain(table, ids, dtype), shared, split_axis=0, concat_axis=2, tiled=True
        )

    return jax.shard_map(
        on_device,
        in_specs=(PartitionSpec(None, columns or None), PartitionSpec(None, rows or None)),
        out_specs=PartitionSpec(rows or None, None, kept or None),
    )(table_RxE, ids_TxBxL)


@functools.cache  # once for each
def _warn(rows, devices):
    log.warning(
        "embedding tables: %d rows on %d devices: the lookup is XLA's, which moves far more",
        rows,
        devices,
    )
