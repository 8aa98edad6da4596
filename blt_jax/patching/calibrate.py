"""A threshold for a target mean patch size, measured on a corpus (blt.md, section 2.4).

The mean is a step function of the threshold: entropies are stored as float16, so every threshold between two
neighbouring float16 numbers cuts as the lower one does. The search therefore tries only float16 numbers, for
rises too, and returns the one whose mean comes nearest; the result says what it achieves.
"""

import dataclasses

import numpy as np

from blt_jax.config import ConfigError, Patching
from blt_jax.patching.layout import starts_to_lengths
from blt_jax.patching.rules import starts

REACH = 0.01  # a target may lie outside the means that thresholds give by this share
LONGEST = 64  # patch lengths beyond are counted together
SAMPLE = 64 << 20  # positions that are searched; documents come in hash order, so the first are a fair sample


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a patching does on a corpus; plain numbers, so that it can be kept as JSON."""

    patching: Patching  # with the threshold found
    threshold: float  # nats
    target: float  # positions per patch that were asked for; 0: the threshold was given
    achieved: float  # positions per patch: BOS, EOS and their patches counted
    documents: int
    positions: int
    patches: int
    patch_lengths: tuple[int, ...]  # [k]: patches of k positions; the last entry: of more than LONGEST
    bytes_per_patch: dict[str, float]  # by source


def calibrate(documents, patching: Patching, sample=SAMPLE) -> Calibration:
    """Solves `patching.threshold` for `patching.target` positions per patch; with target 0 it only measures.

    `documents`: iterable of (ids int [N], entropies float16 [N] or None, source); of more than `sample`
    positions only the first are used. With rule "combined" the rise `threshold_add` stays as it is.
    Raises ConfigError: no documents, or a target for a rule that has no threshold.
    """
    if patching.target and not patching.needs_entropies:
        raise ConfigError(f"patching.target = {patching.target}: rule {patching.rule!r} has no threshold to solve for")
    corpus = _take(documents, sample)
    if not corpus:
        raise ConfigError("patching: no documents to calibrate on")
    if patching.target:
        patching = dataclasses.replace(patching, threshold=_solve(corpus, patching))

    lengths, by_source = np.zeros(LONGEST + 2, np.int64), {}
    for ids, entropies, source in corpus:
        own = starts_to_lengths(starts(ids, entropies, patching))
        lengths += np.bincount(np.minimum(own, LONGEST + 1), minlength=LONGEST + 2)
        text_bytes, patches = by_source.get(source, (0, 0))
        by_source[source] = text_bytes + max(len(ids) - 2, 0), patches + len(own)
    positions, patches = sum(len(ids) for ids, _, _ in corpus), int(lengths.sum())
    return Calibration(
        patching=patching,
        threshold=patching.threshold,
        target=patching.target,
        achieved=positions / patches,
        documents=len(corpus),
        positions=positions,
        patches=patches,
        patch_lengths=tuple(lengths.tolist()),
        bytes_per_patch={source: b / n for source, (b, n) in sorted(by_source.items())},
    )


def _take(documents, sample):
    """The first documents of `sample` positions in all, at least one; ids shrunk to two bytes each."""
    taken, positions = [], 0
    for ids, entropies, source in documents:
        taken.append((np.asarray(ids, np.uint16), entropies, source))
        positions += len(ids)
        if positions >= sample:
            break
    return taken


def _solve(corpus, patching):
    """The float16 threshold whose mean patch size is nearest to the target; of equals, the lowest."""
    positions = sum(len(ids) for ids, _, _ in corpus)
    means = {}

    def mean(rank):
        if rank not in means:
            at = dataclasses.replace(patching, threshold=_float16(rank))
            means[rank] = positions / sum(int(starts(ids, e, at).sum()) for ids, e, _ in corpus)
        return means[rank]

    # The mean grows with the threshold. Below `low` every position that can start does; above `high` none.
    low, high = _rank(-np.inf) + 1, _rank(np.inf) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if mean(middle) >= patching.target:
            high = middle
        else:
            low = middle
    shortest, longest = mean(_rank(-np.inf) + 1), mean(_rank(np.inf) - 1)
    if not shortest * (1 - REACH) <= patching.target <= longest * (1 + REACH):
        raise ConfigError(
            f"patching.target = {patching.target}: rule {patching.rule!r} with max_length {patching.max_length} "
            f"gives means from {shortest:.2f} to {longest:.2f} on this corpus"
        )
    best = min((low, high), key=lambda rank: abs(mean(rank) - patching.target))
    return _float16(best)


def _rank(value):
    """Float16 numbers as integers in their own order."""
    bits = int(np.float16(value).view(np.uint16))
    return bits if bits < 0x8000 else 0x8000 - bits - 1


def _float16(rank):
    bits = rank if rank >= 0 else 0x8000 - rank - 1
    return float(np.uint16(bits).view(np.float16))
