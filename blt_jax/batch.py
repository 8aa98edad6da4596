"""The batch that models read: its fields, once.

A batch is a plain dict of arrays, so that jit, grain and orbax see a pytree; `Batch` gives its keys
types. Sizes: B rows, L positions of a row (bytes, or tokens of a token model), P patch slots.
Padding: id 0, segment 0, mask 0; its patch is P, which is no slot, and it reads slot P - 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

Array = Any  # of NumPy, of jax, or a jax.ShapeDtypeStruct


class Batch(TypedDict, total=False):
    """int32 but for the mask; what a model does not read may be absent."""

    ids_BxL: Array
    segment_BxL: Array  # number of the document's span in its row, 1 up; 0: padding
    # of models whose patches are given
    patch_BxL: Array  # patch that a byte lies in
    read_BxL: Array  # patch that a byte's decoder reads: the newest complete one
    patch_segment_BxP: Array  # segment of a patch; 0: an empty slot
    # of training and evaluation
    targets_BxL: Array  # next id
    loss_mask_BxL: Array  # float32: 1 where there is a target
    bytes_BxL: Array  # text bytes that the target stands for


READ = ("ids_BxL", "segment_BxL")
PATCHES = ("patch_BxL", "read_BxL", "patch_segment_BxP")
TARGETS = ("targets_BxL", "loss_mask_BxL", "bytes_BxL")


def fields(model: Any) -> tuple[str, ...]:
    """What `model` reads of a batch."""
    return READ + (PATCHES if model.patches == "given" else ())


def dtype(field: str) -> type:
    """NumPy dtype of a field."""
    return np.float32 if field == "loss_mask_BxL" else np.int32


def example(model: Any) -> Batch:
    """The smallest batch that `model` reads; parameter shapes do not depend on its size."""
    return {field: np.zeros((1, 2), np.int32) for field in fields(model)}  # type: ignore


def abstract(model: Any, rows: int, positions: int, slots: int, sharding: Any) -> Batch:
    """A training batch as jax.ShapeDtypeStructs with a sharding."""
    import jax

    def struct(field):
        shape = (rows, slots if field.endswith("P") else positions)
        return jax.ShapeDtypeStruct(shape, dtype(field), sharding=sharding)

    return {field: struct(field) for field in fields(model) + TARGETS}  # type: ignore


def of_row(field: str) -> str:
    """What a field is called in a row by itself: "ids_BxL" is "ids_L"."""
    return field.replace("_Bx", "_")


def empty(fields: Iterable[str], positions: int, slots: int = 0) -> dict[str, np.ndarray]:
    """`fields` of a row of padding by itself: arrays [L] and [P]."""
    size = lambda field: slots if field.endswith("P") else positions
    return {
        of_row(field): np.full(size(field), _padding(field, slots), dtype(field))
        for field in fields
    }


def stacked(rows: Sequence[Mapping[str, np.ndarray]]) -> Batch:
    """A batch of rows of the same fields and sizes."""
    fields = (field for field in READ + PATCHES + TARGETS if of_row(field) in rows[0])
    return {field: np.stack([row[of_row(field)] for row in rows]) for field in fields}  # type: ignore


def _padding(field, slots):
    """What stands where a row has nothing."""
    known = {"patch": slots, "read": slots - 1}
    return known.get(field.rpartition("_")[0], 0) if slots else 0


def blank(names: Iterable[str], rows: int, positions: int, slots: int = 0) -> Batch:
    """Rows of padding altogether, [B, L] and [B, P]."""
    made: dict[str, np.ndarray] = {}
    for field in names:
        shape = (rows, slots if field.endswith("P") else positions)
        made[field] = np.full(shape, _padding(field, slots), dtype(field))
    return made  # type: ignore


def padded(parts: Mapping[str, Iterable[np.ndarray]], positions: int, slots: int = 0) -> Batch:
    """Fields as lists of arrays of any lengths, one for each row -> [B, L] and [B, P], B a power of
    two. Rows past the last are padding altogether.
    """
    lists = {field: list(arrays) for field, arrays in parts.items()}
    rows = max(map(len, lists.values()))
    batch = blank(lists, 1 << (rows - 1).bit_length(), positions, slots)
    for field, arrays in lists.items():
        for b, array in enumerate(arrays):
            batch[field][b, : len(array)] = array  # type: ignore
    return batch
