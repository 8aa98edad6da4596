"""Bootstrap over runs and seeds, and the intervals read from its replicates.

For a law over the whole table a replicate is a weight for every row, not a list of drawn rows: each
weight is a Gamma variable of mean 1, so that no budget or size is ever lost (the Bayesian bootstrap
of Rubin, 1981, is the case of exponential weights). For parabolas on a grid of sizes, a few runs
each, a replicate has the residuals of all budgets dealt out anew. Both pay for the p constants that
were fitted to n runs with a variance of n / (n - p), which repairs to first order what residuals
lack of the noise; with few runs to spare intervals stay rather too narrow.
"""

import dataclasses
import warnings

import numpy as np

LEVEL = 0.9  # of every interval


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 90% percentile interval over the bootstrap; None where there is nothing to
    say.

    `share` is the part of the replicates that gave a value at all: an optimum may leave the grid in
    some.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    share: float | None = None

    def holds(self, value):
        """Whether the interval has `value` in it."""
        return self.low is not None and self.low <= value <= self.high


def estimate(value, replicates_R=()):
    """Estimate of `value` (NaN or None: none) from its replicates, of which NaN ones count in
    `share` only.
    """
    replicates_R = np.asarray(replicates_R, float)
    given = replicates_R[np.isfinite(replicates_R)]
    value = None if value is None or not np.isfinite(value) else float(value)
    if not len(replicates_R):
        return Estimate(value)
    if not len(given):
        return Estimate(value, share=0.0)
    low, high = interval(given)
    return Estimate(value, float(low), float(high), len(given) / len(replicates_R))


def interval(replicates_RxX, axis=0):
    """(low, high) 90% percentiles over the replicates, NaN ones left out."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of NaN alone, or of infinite ends: the interval is NaN there
        return np.nanquantile(replicates_RxX, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=axis)


def weights(cell_M, constants, draws, rng):
    """weights_RxM for rows that belong to runs `cell_M` (equal numbers: one run, several seeds).

    A run's weight has variance n / (n - constants) over n runs; a seed's share within its run
    varies likewise. Where runs are no more than constants, only seeds vary, and without seeds all
    weights are 1: no freedom, no interval.
    """
    _, run_M, seeds_of_run = np.unique(cell_M, return_inverse=True, return_counts=True)
    runs = len(seeds_of_run)
    drawn_RxM = np.ones((draws, len(run_M)))
    if runs > constants:
        drawn_RxM *= _gamma(runs, constants, draws, rng)[:, run_M]
    for run in np.flatnonzero(seeds_of_run > 1):
        seeds = seeds_of_run[run]
        share = _gamma(seeds, 1, draws, rng)
        drawn_RxM[:, run_M == run] *= share / np.maximum(share.mean(1, keepdims=True), 1e-12)
    return drawn_RxM


def resampled(fitted_M, y_M, cell_M, constants, draws, rng):
    """y_RxM with the relative residuals of runs dealt out anew, and within runs those of seeds.

    Where runs are no more than constants, or have one seed each, that part does not vary.
    """
    _, run_M, seeds_of_run = np.unique(cell_M, return_inverse=True, return_counts=True)
    runs, residual_M = len(seeds_of_run), y_M / fitted_M - 1
    of_run_K = np.bincount(run_M, residual_M) / seeds_of_run
    dealt_RxM = np.zeros((draws, len(y_M)))
    if runs > constants:
        of_run_K *= np.sqrt(runs / (runs - constants))
        dealt_RxM += of_run_K[rng.integers(runs, size=(draws, runs))][:, run_M]
    several_M = seeds_of_run[run_M] > 1
    if several_M.any():
        seeds_M = seeds_of_run[run_M][several_M]
        apart_M = (residual_M - (np.bincount(run_M, residual_M) / seeds_of_run)[run_M])[several_M]
        apart_M *= np.sqrt(seeds_M / (seeds_M - 1))
        dealt_RxM[:, several_M] += apart_M[rng.integers(len(apart_M), size=(draws, len(apart_M)))]
    return fitted_M * (1 + dealt_RxM)


def free(replicates_RxM):
    """Whether replicates differ at all: without, they are copies and an interval would be a lie."""
    return any(len(set(column[np.isfinite(column)].tolist())) > 1 for column in replicates_RxM.T)


def _gamma(count, constants, draws, rng):
    shape = (count - constants) / count
    return rng.gamma(shape, 1 / shape, (draws, count))
