"""Bootstrap over runs and seeds, or over documents, and the intervals read from its replicates.

For a law over the whole table a replicate is a weight for every row, not a list of drawn rows: each
weight is a Gamma variable of mean 1, so that no budget or size is ever lost (the Bayesian bootstrap
of Rubin, 1981, is the case of exponential weights). For parabolas on a grid of sizes, a few runs
each, a replicate has the residuals of all budgets dealt out anew. Both pay for the p constants that
were fitted to n runs with a variance of n / (n - p), which repairs to first order what residuals
lack of the noise; with few runs to spare intervals stay rather too narrow.
"""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

LEVEL = 0.9  # of every interval
FEWEST = 5  # documents from which on drawing them anew says something


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 90% percentile interval over the bootstrap; None where there is none.

    `share` is the part of the replicates that gave a value at all: an optimum may leave the grid in
    some.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    share: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the interval has `value` in it."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


def estimate(value: Any, replicates_R: Any = ()) -> Estimate:
    """Estimate of `value` (NaN or None: none) from its replicates; those that are NaN count in
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


def interval(replicates_RxX: np.ndarray, axis: int = 0) -> np.ndarray:
    """(low, high) 90% percentiles over the replicates, NaN ones left out: float [2, ...]."""
    with warnings.catch_warnings():
        # of NaN alone, or of infinite ends: the interval is NaN there
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanquantile(replicates_RxX, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=axis)


def weights(cell_M: np.ndarray, constants: int, draws: int, rng: np.random.Generator) -> np.ndarray:
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


def resampled(
    fitted_M: np.ndarray,
    y_M: np.ndarray,
    cell_M: np.ndarray,
    constants: int,
    draws: int,
    rng: np.random.Generator,
) -> np.ndarray:
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


def free(replicates_RxM: np.ndarray) -> bool:
    """Whether replicates differ at all. Copies of each other give no interval."""
    return any(len(set(column[np.isfinite(column)].tolist())) > 1 for column in replicates_RxM.T)


class Draws:
    """The same documents, drawn anew alike for every column that is asked for: intervals of
    differences are paired. Fewer documents than FEWEST: no intervals.
    """

    def __init__(self, documents: int, draws: int = 1000, seed: int = 0):
        random, even = np.random.default_rng(seed), np.full(documents, 1 / documents)
        self._weights_RxD = random.multinomial(
            documents, even, draws if documents >= FEWEST else 0
        ).astype(float)

    def ratio(self, over_D: Any, under_D: Any) -> tuple[float, np.ndarray]:
        """(sum over / sum under, its replicates [R])."""
        over_D, under_D = np.asarray(over_D, float), np.asarray(under_D, float)
        replicates_R = (self._weights_RxD @ over_D) / (self._weights_RxD @ under_D)
        return over_D.sum() / under_D.sum(), replicates_R

    def estimate(self, over_D: Any, under_D: Any) -> Estimate:
        """Estimate of sum over / sum under."""
        return estimate(*self.ratio(over_D, under_D))


def combined(function: Callable, *ratios: tuple[float, np.ndarray]) -> Estimate:
    """Estimate of a function of `Draws.ratio`s of the same draws."""
    values, replicates = zip(*ratios, strict=True)
    return estimate(function(*values), function(*replicates))


def _gamma(count: int, constants: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    shape = (count - constants) / count
    return rng.gamma(shape, 1 / shape, (draws, count))
