"""Threshold search: the nearest mean there is, checked against trying every threshold."""

import dataclasses
import json

import numpy as np
import pytest

from blt_jax.config import ConfigError, Patching
from blt_jax.patching.calibrate import LONGEST, Calibration, calibrate, load, record
from blt_jax.patching.layout import starts_to_lengths
from blt_jax.patching.rules import starts
from blt_jax.record import build


def corpus(levels=0):
    """Documents with heavy-tailed entropies; with `levels`, of only so many values: nearly all are ties."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(10):
        n = int(rng.integers(3, 200))
        entropies = (rng.random(n) ** 3 * 5).astype(np.float16)
        if levels:
            entropies = (np.round(entropies.astype(np.float32) / 5 * levels) / levels).astype(np.float16)
        made.append((rng.integers(4, 260, n), entropies, f"source{i % 2}"))
    return made


def mean_size(documents, patching):
    lengths = [starts_to_lengths(starts(ids, e, patching)) for ids, e, _ in documents]
    return sum(len(ids) for ids, _, _ in documents) / sum(map(len, lengths))


@pytest.mark.parametrize("levels", [0, 7])
@pytest.mark.parametrize("rule", ["entropy", "relative", "combined"])
def test_nearest_mean(rule, levels):
    documents = corpus(levels)
    wanted = Patching(rule=rule, target=4.5, threshold_add=-0.5)
    found = calibrate(iter(documents), wanted)
    assert mean_size(documents, found.patching) == found.achieved
    assert found.patching == dataclasses.replace(wanted, threshold=found.threshold)
    values = np.unique(np.concatenate([e for _, e, _ in documents]).astype(np.float32))
    if rule == "relative":
        values = np.unique(np.concatenate([np.diff(e.astype(np.float32)) for _, e, _ in documents]))
    tried = [mean_size(documents, dataclasses.replace(wanted, threshold=float(v))) for v in values]
    # Thresholds are float16 numbers; a rise is a float32 difference, which one of them separates to 1e-2 here.
    tolerance = 1e-2 if rule == "relative" else 0
    assert abs(found.achieved - 4.5) <= min(abs(m - 4.5) for m in tried) + tolerance


def test_result_adds_up_and_is_json():
    documents = corpus()
    found = calibrate(documents, Patching(target=4.5, max_length=8))
    assert sum(found.patch_lengths) == found.patches
    assert sum(k * n for k, n in enumerate(found.patch_lengths)) == found.positions == sum(len(d[0]) for d in documents)
    assert not any(found.patch_lengths[9:]) and set(found.sources) == {"source0", "source1"}
    assert found.documents == 10 and abs(found.achieved - 4.5) < 0.02
    assert build(Calibration, json.loads(json.dumps(record(found)))["calibration"]) == found


def test_longest_patches_are_counted_together():
    """Patches of 1, LONGEST, LONGEST + 1 and LONGEST + 6 positions."""
    sizes = [1, LONGEST, LONGEST + 1, LONGEST + 6]
    entropies = np.zeros(sum(sizes), np.float16)
    entropies[np.cumsum(sizes)[1:-1] - 1] = 3.0
    found = calibrate([(np.full(entropies.size, 70), entropies, "s")], Patching())
    assert {k: n for k, n in enumerate(found.patch_lengths) if n} == {1: 1, LONGEST: 1, LONGEST + 1: 2}


def test_small_patches_need_falls_to_count_as_rises():
    found = calibrate(corpus(), Patching(rule="relative", target=1.5))
    assert found.threshold < 0 and abs(found.achieved - 1.5) < 0.01


def test_a_given_threshold_is_only_measured():
    documents = corpus()
    found = calibrate(documents, Patching(threshold=2.0))
    assert found.threshold == 2.0 and found.achieved == mean_size(documents, Patching(threshold=2.0))
    byte = calibrate([(ids, None, s) for ids, _, s in documents], Patching(rule="byte"))
    assert byte.achieved == 1.0 and byte.patch_lengths[1] == byte.positions


def test_sample_is_the_first_documents():
    documents = corpus()
    assert calibrate(documents, Patching(threshold=1.0), sample=1).documents == 1


@pytest.mark.parametrize(
    "documents, patching, message",
    [
        ([], Patching(), "no documents"),
        (corpus(), Patching(rule="space", target=6.0), "rule 'space' has no threshold"),
        (corpus(), Patching(target=6.0, max_length=4), r"means from 1.00 to 3.\d\d on this corpus"),
    ],
)
def test_what_cannot_be_calibrated(documents, patching, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(documents, patching)
