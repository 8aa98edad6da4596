"""From patch starts to the arrays that a model reads: starts <-> lengths <-> patch of each byte.

The encoder's bytes belong to the patch they lie in. The decoder is one step behind (docs/blt.md,
section 6): a byte reads the newest patch that is complete once the byte is known, so nothing looks
ahead. A row has a static budget of P patch slots. More patches than slots is an error, never a
silent merge.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from blt_jax.config import EOS, ConfigError


class PatchOverflow(ConfigError):
    """A row has more patches than it has slots."""


def starts_to_lengths(starts_N: np.ndarray) -> np.ndarray:
    """Patch lengths, int64, of bool start flags [N]; their sum is N. The first flag must be set."""
    begins = np.flatnonzero(starts_N)
    if not begins.size or begins[0]:
        raise ConfigError("patch starts: position 0 must start a patch")
    return np.diff(begins, append=len(starts_N))


def lengths_to_starts(lengths_P: ArrayLike) -> np.ndarray:
    """Bool start flags of patch lengths; lengths of 0 are empty slots and may only come last."""
    lengths_P = np.asarray(lengths_P)
    used = lengths_P[: _used(lengths_P)]
    starts_N = np.zeros(used.sum(), bool)
    starts_N[np.cumsum(used) - used] = True
    return starts_N


def patch_numbers(starts_N: np.ndarray) -> np.ndarray:
    """The patch, from 0 up, of each position, int32 [N]."""
    return np.cumsum(starts_N, dtype=np.int32) - 1


def _used(lengths_P):
    """Slots in use. Raises ConfigError for negative lengths, or an empty slot before a used one."""
    used = int((lengths_P > 0).sum())
    if (lengths_P[:used] <= 0).any() or (lengths_P[used:] != 0).any():
        raise ConfigError("patch lengths: must be positive, then 0 for empty slots")
    return used


def lengths_to_patch_and_read(
    lengths_BxP: ArrayLike, positions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encoder and decoder patch ids, int32 [B, L] both, of whole rows of L = `positions` bytes.

    Lengths count the byte after the row too (sum L + 1), and the first patch has length 1: example
    [1, 2, 2, 1, 2] -> patch [0, 1, 1, 2, 2, 3, 4], read [0, 0, 1, 1, 2, 3, 3]. ConfigError
    otherwise.
    """
    lengths_BxP = np.asarray(lengths_BxP)
    patch_BxL = np.empty((len(lengths_BxP), positions), np.int32)
    read_BxL = np.empty_like(patch_BxL)
    for b, lengths_P in enumerate(lengths_BxP):
        if lengths_P.sum() != positions + 1 or lengths_P[0] != 1:
            raise ConfigError(
                f"patch lengths of row {b}: must begin with 1 and add up to {positions + 1} (the "
                f"row's {positions} bytes and the next), but begin with {lengths_P[0]} and add up "
                f"to {lengths_P.sum()}"
            )
        patch = patch_numbers(lengths_to_starts(lengths_P))
        patch_BxL[b], read_BxL[b] = patch[:-1], patch[1:] - 1
    return patch_BxL, read_BxL


def force_starts(starts_L: np.ndarray, segment_L: np.ndarray) -> np.ndarray:
    """Start flags of a row of spans, bool [L]: the rule's, and the first two positions of every
    segment; none in padding.
    """
    fresh = np.empty(len(segment_L), bool)
    fresh[0], fresh[1:] = True, segment_L[1:] != segment_L[:-1]
    forced = starts_L | fresh
    forced[1:] |= fresh[:-1]
    return forced & (segment_L > 0)


def row_layout(
    starts_L: np.ndarray, segment_L: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patch, read and patch segment of a row: int32 [L], [L], [P] with P = `slots`.

    `segment_L`: number of the span that a position belongs to, 1 up, 0 = padding (only at the end).
    A patch lies in one segment: spans end their last patch. Padding has patch P, which is no slot,
    and reads P - 1. The last position of a span reads its own patch, which is complete. Raises
    PatchOverflow.
    """
    starts_L = force_starts(starts_L, segment_L)
    patches, used = np.count_nonzero(starts_L), np.count_nonzero(segment_L)
    if patches > slots:
        raise PatchOverflow(
            f"row of {patches} patches: the budget is {slots}; raise it, or rebuild the row index"
        )
    patch_L = np.full(len(segment_L), slots, np.int32)
    patch_L[:used] = patch_numbers(starts_L[:used])
    read_L = np.full(len(segment_L), slots - 1, np.int32)
    # What ends a row counts as a fresh patch.
    following = np.append(patch_L[1:used], patches)[:used]
    read_L[:used] = following - 1
    patch_segment_P = np.zeros(slots, np.int32)
    patch_segment_P[:patches] = segment_L[starts_L]
    return patch_L, read_L, patch_segment_P


def padded_length(longest: int) -> int:
    """Positions of a static shape for rows of up to `longest`: a power of two, at least 64."""
    return max(64, 1 << (longest - 1).bit_length())


def document_segments(ids_BxL: np.ndarray, closing: Sequence[int] = (EOS,)) -> np.ndarray:
    """Number of the document of each id, 1 up, int32 [B, L]. A `closing` id closes the document
    that it belongs to.
    """
    closes = np.isin(ids_BxL, closing)
    return (1 + np.cumsum(closes, axis=-1) - closes).astype(np.int32)


def rows_by_lengths(ids_BxL: np.ndarray, lengths_BxP: ArrayLike) -> dict[str, np.ndarray]:
    """A model batch of whole rows, int32, whose patch lengths count the next byte (sum L + 1, zeros
    after).

    Documents are separated where EOS says so, in the latent model after the patch that holds the
    EOS; positions, n-grams and patches do not restart. Raises ConfigError for lengths that do not
    fit.
    """
    lengths_BxP = np.asarray(lengths_BxP)
    patch_BxL, read_BxL = lengths_to_patch_and_read(lengths_BxP, ids_BxL.shape[1])
    closes_BxP = np.zeros(lengths_BxP.shape, bool)
    row, position = np.nonzero(ids_BxL == EOS)
    closes_BxP[row, patch_BxL[row, position]] = True
    before_BxP = np.cumsum(closes_BxP, axis=1) - closes_BxP
    return {
        "ids_BxL": ids_BxL.astype(np.int32),
        "segment_BxL": document_segments(ids_BxL),
        "patch_BxL": patch_BxL,
        "read_BxL": read_BxL,
        "patch_segment_BxP": np.where(lengths_BxP > 0, 1 + before_BxP, 0).astype(np.int32),
    }
