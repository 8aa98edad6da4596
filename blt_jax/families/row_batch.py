"""Rows of ids of any lengths as the batch that a model reads, padded to few static shapes."""

from collections.abc import Sequence

import numpy as np

from blt_jax.batch import Batch, padded
from blt_jax.patching import row_layout


def segmented(rows: Sequence[np.ndarray], closes: tuple[int, ...]) -> Batch:
    """A batch without patches of `rows`, int32 [L] each; ids in `closes` end a document."""
    segments = [row_layout.document_segments(row, closes) for row in rows]
    return padded({"ids_BxL": rows, "segment_BxL": segments}, _positions(rows))


def patched(rows: Sequence[np.ndarray], lengths: Sequence[np.ndarray]) -> Batch:
    """A batch with patches. `lengths`: of each row its patch lengths, the next id counted."""
    positions = _positions(rows)
    single = [
        row_layout.rows_by_lengths(row[None], np.asarray(n)[None])
        for row, n in zip(rows, lengths, strict=True)
    ]
    parts = {field: [batch[field][0] for batch in single] for field in single[0]}
    most = max(map(len, parts["patch_segment_BxP"]))
    # In short rows another program would cost more than slots that stay empty.
    fewer = (positions // 4, positions // 2) if positions > 256 else ()
    slots = next(slots for slots in (*fewer, positions + 1, most) if slots >= most)
    return padded(parts, positions, slots)


def _positions(rows):
    return row_layout.padded_length(max(map(len, rows)))


def document_begins(rows: Sequence[np.ndarray], closes: tuple[int, ...]) -> np.ndarray:
    """int32 [B]: where the document begins that the id after each row would belong to."""
    return np.array([after_last(np.isin(row, closes)) for row in rows], np.int32)


def after_last(flags: np.ndarray) -> int:
    """The position after the last flag that is set, or 0."""
    positions = np.flatnonzero(flags)
    return int(positions[-1]) + 1 if positions.size else 0
