"""A threshold for a target mean patch size, measured on a corpus (docs/blt.md, section 2.4), and
the record of it.

The mean is a step function of the threshold: entropies are stored as float16, so every threshold
between two neighbouring float16 numbers cuts as the lower one does. The search therefore tries only
float16 numbers, for rises too, and returns the one whose mean comes nearest; the result says what
it achieves.

The record is a JSON file: {"format": 1, "fingerprint": of all the rest, "calibration": the fields
of `Calibration`}.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.patching import Patching
from blt_jax.patching.row_layout import starts_to_lengths
from blt_jax.patching.row_starts import starts
from blt_jax.record import build, fingerprint

FORMAT = 1
REACH = 0.01  # a target may lie outside the means that thresholds give by this share
LONGEST = 64  # patch lengths beyond are counted together
# positions that are searched; documents come in hash order, so the first are a fair sample
SAMPLE = 64 << 20


@dataclasses.dataclass(frozen=True)
class Source:
    """What was measured of one source."""

    text_bytes: int
    patches: int
    bytes_per_patch: float
    weight: float = 1.0  # in training, and so in the mean that the threshold is solved for


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a patching does on a corpus; plain numbers, so that it can be kept as JSON."""

    patching: Patching  # with the threshold found
    threshold: float  # nats
    target: float  # positions per patch that were asked for; 0: the threshold was given
    achieved: float  # positions per patch, sources by weight: BOS, EOS and their patches counted
    text_bytes_per_patch: float  # sources by weight
    documents: int  # measured on
    positions: int
    patches: int
    # [k]: patches of k positions; the last entry: of more than LONGEST
    patch_lengths: tuple[int, ...]
    sources: dict[str, Source]
    corpus: str  # fingerprint of the store's split
    entropy_model: str  # fingerprint of what made its entropies; "": the rule needs none
    weights: dict[str, float]  # as asked for


Document = tuple[np.ndarray, np.ndarray | None, str]  # ids, entropies, source


def calibrate(
    documents: Iterable[Document],
    patching: Patching,
    *,
    sample: int = SAMPLE,
    weights: dict[str, float] | None = None,
    corpus: str = "",
    entropy_model: str = "",
) -> Calibration:
    """Solves `patching.threshold` for `patching.target` positions per patch; with target 0 it only
    measures.

    `documents`: of each, ids int [N], entropies float16 [N] or None (`row_starts.read_document`)
    and its source; of more than `sample` positions only the first are used. `weights`: {source:
    weight in the mean}, 1 where not named; a source of weight 0 is left out. With rule "combined"
    the rise `threshold_add` stays as it is. `corpus`, `entropy_model`: fingerprints to record.
    Raises ConfigError: no documents, or a target for a rule that has no threshold.
    """
    weights = weights or {}
    if patching.target and not patching.has_threshold:
        raise ConfigError(
            f"patching.target = {patching.target}: rule {patching.rule!r} has no threshold to "
            "solve for"
        )
    measured = _take((document for document in documents if weights.get(document[2], 1.0)), sample)
    if not measured:
        raise ConfigError("patching: no documents to calibrate on")
    weight_D = np.array([weights.get(source, 1.0) for _, _, source in measured])
    sizes_D = np.array([len(ids) for ids, _, _ in measured])
    if patching.target:
        patching = dataclasses.replace(
            patching, threshold=_solve(measured, weight_D, sizes_D, patching)
        )

    histogram, patches_D = np.zeros(LONGEST + 2, np.int64), np.zeros(len(measured), np.int64)
    for d, (ids, entropies, _) in enumerate(measured):
        lengths = starts_to_lengths(starts(ids, entropies, patching))
        histogram += np.bincount(np.minimum(lengths, LONGEST + 1), minlength=LONGEST + 2)
        patches_D[d] = len(lengths)
    text_D, sources = np.maximum(sizes_D - 2, 0), {}
    for source in sorted({source for _, _, source in measured}):
        own_D = np.array([name == source for _, _, name in measured])
        text, patches = int(text_D[own_D].sum()), int(patches_D[own_D].sum())
        sources[source] = Source(text, patches, text / patches, weights.get(source, 1.0))
    return Calibration(
        patching=patching,
        threshold=patching.threshold,
        target=patching.target,
        achieved=float(weight_D @ sizes_D / (weight_D @ patches_D)),
        text_bytes_per_patch=float(weight_D @ text_D / (weight_D @ patches_D)),
        documents=len(measured),
        positions=int(sizes_D.sum()),
        patches=int(patches_D.sum()),
        patch_lengths=tuple(histogram.tolist()),
        sources=sources,
        corpus=corpus,
        entropy_model=entropy_model,
        weights=dict(weights),
    )


def record(calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON types, to be written to a file."""
    plain = json.loads(json.dumps(dataclasses.asdict(calibration)))
    return {"format": FORMAT, "fingerprint": fingerprint(plain), "calibration": plain}


def load(path: storage.PathLike, *, corpus: str, entropy_model: str) -> Calibration:
    """The calibration kept in a file. Raises ConfigError if it is damaged or was made for other
    data.

    `corpus`, `entropy_model`: fingerprints of the store that it shall be used with; the second only
    counts for rules that need entropies.
    """
    mend = "prepare the study again"
    try:
        saved = json.loads(storage.at(path).read_text())
        known, plain = saved["format"] == FORMAT, saved["calibration"]
        recorded = saved["fingerprint"]
    except OSError as error:
        raise ConfigError(f"calibration {path}: cannot be read: {error.strerror}; {mend}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"calibration {path}: is not a calibration of this program; delete it and {mend}"
        ) from None
    if not known:
        raise ConfigError(
            f"calibration {path}: format {saved['format']}, known is {FORMAT}; delete it and {mend}"
        )
    if fingerprint(plain) != recorded:
        raise ConfigError(f"calibration {path}: changed since it was written; delete it and {mend}")
    calibration = build(Calibration, plain)
    if calibration.corpus != corpus:
        raise ConfigError(
            f"calibration {path}: of corpus {calibration.corpus}, the store holds {corpus}; {mend}"
        )
    if calibration.patching.needs_entropies and calibration.entropy_model != entropy_model:
        raise ConfigError(
            f"calibration {path}: of entropies {calibration.entropy_model}, the store holds "
            f"{entropy_model or 'none'}; {mend}"
        )
    return calibration


def _take(documents, sample):
    """The first documents of `sample` positions in all, at least one; ids of two bytes each."""
    taken: list[Document] = []
    positions = 0
    for ids, entropies, source in documents:
        taken.append((np.asarray(ids, np.uint16), entropies, source))
        positions += len(ids)
        if positions >= sample:
            break
    return taken


def _solve(measured, weight_D, sizes_D, patching):
    """The float16 threshold whose weighted mean patch size is nearest to the target; of equals, the
    lowest.
    """
    positions = weight_D @ sizes_D

    @functools.cache
    def mean(rank):
        tried = dataclasses.replace(patching, threshold=_float16(rank))
        patches_D = [np.count_nonzero(starts(ids, e, tried)) for ids, e, _ in measured]
        return positions / (weight_D @ patches_D)

    # The mean grows with the threshold. Below `low` every position that can start does; above
    # `high` none.
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
            f"patching.target = {patching.target}: rule {patching.rule!r} with max_length "
            f"{patching.max_length} gives means from {shortest:.2f} to {longest:.2f} on this corpus"
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
