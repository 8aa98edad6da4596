"""Patch layout against worked examples and a slow reference that follows the words, byte by
byte.
"""

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.patching import row_layout


def slow_row(starts_L, segment_L):
    """[(patch or None, read or None)] per position, straight from the rules."""
    owner, spans = [], []
    for i, segment in enumerate(segment_L):
        if segment == 0:
            owner.append(None)
            continue
        place = i - list(segment_L).index(segment)
        if place < 2 or starts_L[i]:
            spans.append(int(segment))
        owner.append(len(spans) - 1)
    read = []
    for i, patch in enumerate(owner):
        complete = (
            i + 1 == len(owner) or owner[i + 1] != patch
        )  # the newest complete patch is this one, or the last
        read.append(None if patch is None else patch if complete else patch - 1)
    return owner, read, spans


def test_lengths_and_starts_are_inverse():
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths_P = rng.integers(1, 6, rng.integers(1, 9))
        starts_N = row_layout.lengths_to_starts(np.append(lengths_P, [0, 0]))
        assert row_layout.starts_to_lengths(starts_N).tolist() == lengths_P.tolist()
        assert np.bincount(row_layout.patch_numbers(starts_N)).tolist() == lengths_P.tolist()
    for wrong in ([1, 0, 2], [1, -1, 2]):
        with pytest.raises(ConfigError, match="patch lengths"):
            row_layout.lengths_to_starts(wrong)
    with pytest.raises(ConfigError, match="position 0"):
        row_layout.starts_to_lengths([False, True])


def test_published_example():
    patch_BxL, read_BxL = row_layout.lengths_to_patch_and_read(
        [[1, 2, 2, 1, 2, 0], [1, 2, 2, 1, 1, 1]], 7
    )
    assert patch_BxL.tolist() == [[0, 1, 1, 2, 2, 3, 4]] * 2
    assert read_BxL.tolist() == [[0, 0, 1, 1, 2, 3, 3], [0, 0, 1, 1, 2, 3, 4]]
    assert patch_BxL.dtype == read_BxL.dtype == np.int32


@pytest.mark.parametrize("lengths_P", [[2, 3], [1, 3], [1, 5]])
def test_lengths_that_do_not_fit_the_row(lengths_P):
    with pytest.raises(ConfigError, match="row 0: must begin with 1 and add up to 5"):
        row_layout.lengths_to_patch_and_read([lengths_P], 4)


def test_row_layout_against_slow_reference():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(1, 9, rng.integers(0, 5))
        padding = int(rng.integers(0, 4))
        segment_L = np.concatenate(
            [np.repeat(np.arange(1, sizes.size + 1), sizes), np.zeros(padding, int)]
        ).astype(int)
        if not segment_L.size:
            continue
        starts_L = rng.random(segment_L.size) < 0.3
        owner, read, spans = slow_row(starts_L, segment_L)
        slots = len(spans) + int(rng.integers(0, 3))
        patch_L, read_L, patch_segment_P = row_layout.row_layout(starts_L, segment_L, slots)
        assert patch_L.tolist() == [slots if p is None else p for p in owner]
        assert read_L.tolist() == [slots - 1 if r is None else r for r in read]
        assert patch_segment_P.tolist() == spans + [0] * (slots - len(spans))
        assert np.all(np.diff(patch_L) >= 0)
        for segment, reads in zip(segment_L, read_L, strict=True):
            assert segment == 0 or patch_segment_P[reads] == segment


def test_row_layout_follows_the_published_example():
    starts_L = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    patch_L, read_L, _ = row_layout.row_layout(starts_L, np.ones(7, int), 5)
    assert patch_L.tolist() == [0, 1, 1, 2, 2, 3, 4] and read_L.tolist() == [0, 0, 1, 1, 2, 3, 4]


def test_overflow_is_an_error():
    with pytest.raises(row_layout.PatchOverflow, match="row of 4 patches: the budget is 3"):
        row_layout.row_layout(np.ones(4, bool), np.ones(4, int), 3)
