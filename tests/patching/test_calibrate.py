"""Threshold search: the nearest mean there is, checked against trying every threshold."""

import dataclasses
import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.patching import Patching
from blt_jax.patching.calibrate import LONGEST, Calibration, calibrate, load, record
from blt_jax.patching.row_layout import starts_to_lengths
from blt_jax.patching.row_starts import starts
from blt_jax.record import build


def corpus(levels=0):
    """Documents with heavy-tailed entropies; with `levels`, of only so many values: nearly all are
    ties.
    """
    rng = np.random.default_rng(0)
    made = []
    for i in range(10):
        n = int(rng.integers(3, 200))
        entropies = (rng.random(n) ** 3 * 5).astype(np.float16)
        if levels:
            entropies = (np.round(entropies.astype(np.float32) / 5 * levels) / levels).astype(
                np.float16
            )
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
    # Thresholds are float16 numbers; a rise is a float32 difference, which one of them separates to
    # 1e-2 here.
    tolerance = 1e-2 if rule == "relative" else 0
    assert abs(found.achieved - 4.5) <= min(abs(m - 4.5) for m in tried) + tolerance


def test_result_adds_up_and_is_json():
    documents = corpus()
    found = calibrate(documents, Patching(target=4.5, max_length=8))
    assert sum(found.patch_lengths) == found.patches
    assert (
        sum(k * n for k, n in enumerate(found.patch_lengths))
        == found.positions
        == sum(len(d[0]) for d in documents)
    )
    assert not any(found.patch_lengths[9:]) and set(found.sources) == {"source0", "source1"}
    assert found.documents == 10 and abs(found.achieved - 4.5) < 0.02
    assert build(Calibration, json.loads(json.dumps(record(found)))["calibration"]) == found


def test_longest_patches_are_counted_together():
    """Patches of 1, LONGEST, LONGEST + 1 and LONGEST + 6 positions."""
    sizes = [1, LONGEST, LONGEST + 1, LONGEST + 6]
    entropies = np.zeros(sum(sizes), np.float16)
    entropies[np.cumsum(sizes)[1:-1] - 1] = 3.0
    found = calibrate([(np.full(entropies.size, 70), entropies, "s")], Patching())
    assert {k: n for k, n in enumerate(found.patch_lengths) if n} == {
        1: 1,
        LONGEST: 1,
        LONGEST + 1: 2,
    }


def test_small_patches_need_falls_to_count_as_rises():
    found = calibrate(corpus(), Patching(rule="relative", target=1.5))
    assert found.threshold < 0 and abs(found.achieved - 1.5) < 0.01


def test_a_given_threshold_is_only_measured():
    documents = corpus()
    found = calibrate(documents, Patching(threshold=2.0))
    assert found.threshold == 2.0 and found.achieved == mean_size(
        documents, Patching(threshold=2.0)
    )
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


# ---------------------------------------------------------------- weights, and the record


def test_a_target_is_the_mean_of_what_is_read():
    documents = corpus()
    weights = {"source0": 3.0, "source1": 0.5}
    found = calibrate(documents, Patching(target=4.5), weights=weights)
    positions = {s: sum(len(ids) for ids, _, name in documents if name == s) for s in weights}
    patches = {
        s: sum(int(starts(ids, e, found.patching).sum()) for ids, e, name in documents if name == s)
        for s in weights
    }
    weighted = lambda counts: sum(w * counts[s] for s, w in weights.items())
    assert found.achieved == pytest.approx(weighted(positions) / weighted(patches))
    assert abs(found.achieved - 4.5) < 0.03 < abs(sum(positions.values()) / found.patches - 4.5)
    assert {s: (one.patches, one.weight) for s, one in found.sources.items()} == {
        s: (patches[s], weights[s]) for s in weights
    }
    text = {s: one.text_bytes for s, one in found.sources.items()}
    assert found.text_bytes_per_patch == pytest.approx(weighted(text) / weighted(patches))


def test_a_source_of_weight_0_is_left_out():
    documents = corpus()
    found = calibrate(documents, Patching(target=4.5), weights={"source1": 0.0})
    alone = calibrate([one for one in documents if one[2] == "source0"], Patching(target=4.5))
    assert set(found.sources) == {"source0"} and found.threshold == alone.threshold


MARKS = {"corpus": "c0", "entropy_model": "e0"}


def kept(folder, change=lambda saved: None, rule="entropy"):
    found = calibrate(
        corpus(),
        Patching(rule=rule, target=4.5 * (rule == "entropy")),
        weights={"source1": 2.0},
        **MARKS,
    )
    saved = record(found)
    change(saved)
    (folder / "blt.json").write_text(json.dumps(saved))
    return found


def test_what_is_kept_is_read_back(tmp_path):
    assert kept(tmp_path) == load(tmp_path / "blt.json", **MARKS)


def test_without_entropies_their_model_does_not_matter(tmp_path):
    found = kept(tmp_path, rule="space")
    assert load(tmp_path / "blt.json", corpus="c0", entropy_model="another") == found
    with pytest.raises(ConfigError, match="of corpus c0, the store holds c1"):
        load(tmp_path / "blt.json", corpus="c1", entropy_model="e0")


@pytest.mark.parametrize(
    "change, marks, message",
    [
        (
            lambda saved: None,
            {"corpus": "c1"},
            "blt.json: of corpus c0, the store holds c1; prepare the study again",
        ),
        (
            lambda saved: None,
            {"entropy_model": "e1"},
            "of entropies e0, the store holds e1; prepare",
        ),
        (
            lambda saved: None,
            {"entropy_model": ""},
            "of entropies e0, the store holds none; prepare",
        ),
        (
            lambda saved: saved["calibration"].update(threshold=1.0),
            {},
            "changed since it was written; delete it",
        ),
        (lambda saved: saved.update(format=9), {}, "format 9, known is 1"),
        (lambda saved: saved.pop("calibration"), {}, "is not a calibration of this program"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, marks, message):
    kept(tmp_path, change)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "blt.json", **MARKS | marks)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="blt.json: cannot be read: No such file"):
        load(tmp_path / "blt.json", **MARKS)
    (tmp_path / "blt.json").write_text('{"format": 1')
    with pytest.raises(ConfigError, match="is not a calibration"):
        load(tmp_path / "blt.json", **MARKS)
