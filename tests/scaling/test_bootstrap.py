"""Bootstrap weights: mean 1, the variance that pays for fitted constants, seeds within runs, and no
false intervals.
"""

import numpy as np
import pytest

from blt_jax.scaling import bootstrap


def test_weights_of_runs():
    drawn_RxM = bootstrap.weights(np.arange(10), 4, 40_000, np.random.default_rng(0))
    assert drawn_RxM.mean() == pytest.approx(1, abs=0.01)
    assert drawn_RxM.var(0).mean() == pytest.approx(10 / 6, rel=0.05)
    assert abs(np.corrcoef(drawn_RxM[:, 0], drawn_RxM[:, 1])[0, 1]) < 0.03


def test_seeds_share_their_run_and_vary_within():
    drawn_RxM = bootstrap.weights(np.array([0, 0, 1, 2, 3]), 1, 20_000, np.random.default_rng(0))
    first, second, alone = drawn_RxM[:, 0], drawn_RxM[:, 1], drawn_RxM[:, 2]
    assert np.corrcoef((first + second) / 2, alone)[0, 1] < 0.03
    assert np.std(first / (first + second)) > 0.2
    assert ((first + second) / 2).var() == pytest.approx(4 / 3, rel=0.1)


def test_without_freedom_nothing_varies():
    exact_RxM = bootstrap.weights(np.arange(3), 3, 50, np.random.default_rng(0))
    assert np.all(exact_RxM == 1) and not bootstrap.free(exact_RxM)
    seeds_RxM = bootstrap.weights(np.array([0, 0, 1, 2]), 3, 50, np.random.default_rng(0))
    assert bootstrap.free(seeds_RxM) and np.all(seeds_RxM[:, 2:] == 1)


def test_the_interval_of_a_mean_holds_it_about_as_often_as_it_says():
    """Of 400 samples of 12, the 90% interval of the mean holds the truth in 0.86 to 0.93 (normal
    noise).
    """
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        sample = rng.normal(size=12)
        drawn_RxM = bootstrap.weights(np.arange(12), 1, 400, rng)
        held += bootstrap.estimate(sample.mean(), (drawn_RxM @ sample) / drawn_RxM.sum(1)).holds(
            0.0
        )
    assert 0.84 < held / 400 < 0.94


def test_estimate_counts_replicates_without_a_value():
    found = bootstrap.estimate(2.0, [1.0, 3.0, np.nan, np.nan])
    assert found.share == 0.5 and found.holds(2.0) and not found.holds(3.1)
    assert (
        bootstrap.estimate(2.0) == bootstrap.Estimate(2.0)
        and bootstrap.estimate(np.nan).value is None
    )
    assert bootstrap.estimate(2.0, [np.nan]).share == 0.0
