"""Drift: no alarm by chance, a true one soon, one word each way. Rows as a packer makes them, heavy
tails included.
"""

import numpy as np
import pytest

from blt_jax.patching import Patching, drift
from blt_jax.patching.calibrate import calibrate

MEAN = 4.5


@pytest.fixture(scope="module")
def rows():
    """(text bytes, patches) of 20,000 rows: nearly full, one in a hundred half empty, some denser
    than others.
    """
    rng = np.random.default_rng(0)
    fill = np.where(rng.random(20_000) < 0.01, rng.random(20_000), 1 - 0.01 * rng.random(20_000))
    text = np.round(8192 * fill).astype(int)
    return text, np.round(text / MEAN * np.exp(0.02 * rng.standard_t(4, 20_000))).astype(int)


def noise(rows):
    text, patches = rows
    mean = text.sum() / patches.sum()
    return mean, float(((text - mean * patches) ** 2).sum() / patches.sum())


def watcher(rows):
    mean, own = noise(rows)
    return drift.Drift(mean, own, least=drift.ROWS * rows[1].mean())


def stream(rows, number, seed, factor=1.0):
    """`number` logging windows of 10 rows as (text bytes, patches), patches longer by `factor`."""
    picked = np.random.default_rng(seed).integers(0, len(rows[0]), (number, 10))
    return zip(
        rows[0][picked].sum(axis=1).tolist(),
        (rows[1][picked] / factor).sum(axis=1).round().astype(int).tolist(),
        strict=True,
    )


def words(watch, counts):
    return [(at, word) for at, one in enumerate(counts) if (word := watch.count(*one))]


def test_no_alarm_in_100_000_windows(rows):
    """By design 6e-7 per window; here 0 of 100,000, and the normal law holds where it can be
    seen.
    """
    watch, (text, patches) = watcher(rows), rows
    needed = int(np.ceil(1.05 * watch.window / patches.mean()))  # rows that always fill a window
    picked = np.random.default_rng(1).integers(0, len(text), (100_000, needed))
    counts = list(
        zip(text[picked].sum(axis=1).tolist(), patches[picked].sum(axis=1).tolist(), strict=True)
    )
    assert all(n >= watch.window for _, n in counts)
    assert words(watch, counts) == []
    deviation = np.std([b / n / watch.mean - 1 for b, n in counts])
    assert deviation <= watch.tolerance / drift.SURE * 1.05  # 5 deviations lie within the tolerance
    short = drift.Drift(watch.mean, 0.0, tolerance=3 * deviation, least=watch.window)
    assert (
        0 < len(words(short, counts)) < 1000
    )  # the same stream does alarm where chance reaches the tolerance


@pytest.mark.parametrize("factor", [1.05, 0.95])
def test_five_percent_are_seen_within_two_windows_and_once(rows, factor):
    for seed in range(20):
        watch = watcher(rows)
        assert words(watch, stream(rows, 200, seed)) == []
        counts = list(stream(rows, 200, seed + 100, factor))
        told = words(watch, counts)
        assert len(told) == 1 and told[0][1].startswith("patches drift: "), told
        read = sum(n for _, n in counts[: told[0][0] + 1])
        assert (
            read < 2 * watch.window + 10 * rows[1].max()
        )  # the rest of a window that began before, and its last rows
        assert f"patches, {factor - 1:+.0%}"[:-2] in told[0][1]
        back = words(watch, stream(rows, 400, seed + 200))
        assert len(back) == 1 and back[0][1].startswith("patches are as calibrated again: ")


def test_window_follows_from_noise_and_tolerance():
    watch = drift.Drift(4.0, 100.0, tolerance=0.025)
    assert watch.window == round(
        100 * (drift.SURE / 0.1) ** 2
    )  # 5 deviations of a window's mean: 0.1 bytes
    assert drift.Drift(4.0, 100.0, tolerance=0.05).window == watch.window / 4
    assert drift.Drift(4.0, 0.0, least=77.5).window == 78


def test_short_windows_add_up():
    watch = drift.Drift(4.0, 0.0, least=100)
    assert [bool(watch.count(50, 10)) for _ in range(25)] == [
        n % 10 == 9 and n < 10 for n in range(25)
    ]


def test_between_the_bounds_nothing_is_said():
    watch = drift.Drift(4.0, 0.0, tolerance=0.02, least=1)
    told = [
        watch.count(round(4000 * (1 + off)), 1000)
        for off in (0, 0.015, 0.03, 0.015, 0.03, 0.005, 0.015, -0.03)
    ]
    assert [word.split(":")[0] for word in told] == [
        "", "", "patches drift", "", "", "patches are as calibrated again", "", "patches drift",
    ]  # fmt: skip
    assert "4.120 bytes per patch over 1,000 patches, +3.0% from the calibrated 4.000" in told[2]


def test_watch_takes_the_starts_that_spans_add_into_account():
    rng = np.random.default_rng(0)
    found = calibrate([(rng.integers(4, 260, 500), None, "s")], Patching(rule="strided", stride=5))
    header = {"document_patches": 100, "patches": 110, "rows": 10, "patch_noise": 2.0}
    watch = drift.watch(found, header)
    assert watch.mean == pytest.approx(found.text_bytes_per_patch / 1.1)
    assert watch.window == max(
        11 * drift.ROWS, int(np.ceil(2 * (drift.SURE / (drift.TOLERANCE * watch.mean)) ** 2))
    )
