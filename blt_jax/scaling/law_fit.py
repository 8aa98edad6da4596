"""Fits of laws that are sums of powers (`power_sums.Law`) to a table of runs: constants with
intervals, lack of fit, a test of extrapolation.

Bands and intervals are those of the law, not of a single run around it.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import special

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, power_sums
from blt_jax.scaling.points import Points
from blt_jax.scaling.power_sums import Law

TOP = 0.6  # runs above this part of a budget count as being at it


@dataclasses.dataclass(frozen=True)
class LackOfFit:
    """Residuals of log loss, and with seeds an F test of them against the scatter of seeds.

    `p_value` small: the law misses more than seeds explain. The F test is the one of least squares,
    on cell means, and so a little strict for a Huber fit. None without a run of two seeds, or with
    no more runs than constants.
    """

    rows: int
    runs: int
    constants: int
    rms: float  # of log residuals, over rows: a relative error
    largest: float
    seed_rms: float | None = None  # of log loss around the mean of its run
    f: float | None = None
    p_value: float | None = None

    @property
    def freedom(self) -> int:
        """Runs beyond the constants. Below five, intervals are rough and rather too narrow."""
        return self.runs - self.constants


def lack_of_fit(
    residual_M: np.ndarray, log_y_M: np.ndarray, cell_M: np.ndarray, constants: int
) -> LackOfFit:
    """LackOfFit of residuals (prediction - truth, in logs)."""
    _, run_M, seeds = np.unique(cell_M, return_inverse=True, return_counts=True)
    runs, rows = len(seeds), len(residual_M)
    rms, largest = float(np.sqrt(np.mean(residual_M**2))), float(np.max(np.abs(residual_M)))
    lack = LackOfFit(rows, runs, constants, rms, largest)
    if rows == runs:
        return lack
    mean_of_run = np.bincount(run_M, log_y_M) / seeds
    pure = float(np.sum((log_y_M - mean_of_run[run_M]) ** 2) / (rows - runs))
    lack = dataclasses.replace(lack, seed_rms=float(np.sqrt(pure)))
    if runs <= constants or pure == 0:
        return lack
    left = np.sum(seeds * (np.bincount(run_M, residual_M) / seeds) ** 2) / (runs - constants)
    f = float(left / pure)
    p_value = float(special.fdtrc(runs - constants, rows - runs, f))
    return dataclasses.replace(lack, f=f, p_value=p_value)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The law fitted without the largest budget, and its error there."""

    budget: float
    runs: int
    predicted: float  # means over the runs held out
    measured: float
    error: float  # mean of predicted / measured - 1
    largest: float  # the error of the run that is furthest off


def held_out(predicted_M: Any, measured_M: np.ndarray, budget: float) -> HeldOut:
    """HeldOut of predictions for the runs at a budget that the law has not seen."""
    error_M = np.asarray(predicted_M) / measured_M - 1
    means = float(np.mean(predicted_M)), float(np.mean(measured_M))
    return HeldOut(
        float(budget),
        len(error_M),
        *means,
        float(error_M.mean()),
        float(error_M[np.abs(error_M).argmax()]),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LawFit:
    """A fitted law. `constants` are in the units of the table; theta in centred logs (see
    power_sums.Law).
    """

    law: Law
    constants: dict[str, bootstrap.Estimate]
    huber: float  # sum of the Huber terms
    lack_of_fit: LackOfFit
    held_out: HeldOut | None
    theta_P: np.ndarray
    replicates_RxP: np.ndarray
    centre: dict[str, float]
    range: dict[str, tuple[float, float]]  # of each feature: smallest and largest seen

    def predict(self, **features: Any) -> np.ndarray:
        """Predictions of the law at features, broadcast together: {params: ..., data: ...}."""
        return self._values(self.theta_P, features)[0]

    def predict_replicates(self, **features: Any) -> np.ndarray:
        """The same of every bootstrap replicate, replicates first."""
        return self._values(self.replicates_RxP, features)

    def band(self, **features: Any) -> tuple[np.ndarray | None, np.ndarray, np.ndarray | None]:
        """(low, prediction, high): the 90% band of the law at features, None for both ends without
        any freedom.
        """
        if not len(self.replicates_RxP):
            return None, self.predict(**features), None
        low, high = bootstrap.interval(self.predict_replicates(**features))
        return low, self.predict(**features), high

    def _values(self, theta, features):
        arrays = np.broadcast_arrays(
            *(np.asarray(features[name], float) for name in self.law.features)
        )
        logs = {name: np.log(array) for name, array in zip(self.law.features, arrays, strict=True)}
        log_y = power_sums.log_values(theta, *self.law.design(logs, self.centre))
        return np.exp(log_y).reshape(-1, *arrays[0].shape)


def fit(
    law: Law,
    points: Points,
    *,
    draws: int,
    seed: Any,
    hold_out: int = 3,
    targets_RxM: np.ndarray | None = None,
) -> LawFit:
    """LawFit of a law to Points. Raises ConfigError where runs are too few or a feature never
    changes.

    `seed`: of `np.random.default_rng`, or a Generator. Held out is the largest budget that at least
    `hold_out` rows reach (0: none is). `targets_RxM` are replicates of the target, `draws` of them,
    where it is itself the outcome of a bootstrap; by default all see the measured one.
    """
    _check(law, points)
    logs, log_y_M = _logs(law, points), np.log(points[law.target])
    centre = {name: float(np.mean(values)) for name, values in logs.items()}
    design = law.design(logs, centre)
    theta_P, huber = power_sums.fit(law, design, log_y_M)
    weights_RxM = bootstrap.weights(
        points.cell, len(law.constants), draws, np.random.default_rng(seed)
    )
    log_y_RxM = (
        np.broadcast_to(log_y_M, weights_RxM.shape) if targets_RxM is None else np.log(targets_RxM)
    )
    if bootstrap.free(weights_RxM) or bootstrap.free(log_y_RxM):
        replicates_RxP = power_sums.refit(law, design, log_y_RxM, theta_P, weights_RxM)
    else:
        replicates_RxP = np.empty((0, len(theta_P)))
    values, spread = law.uncentred(theta_P, centre), law.uncentred(replicates_RxP, centre)
    residual_M = power_sums.log_values(theta_P, *design)[0] - log_y_M
    return LawFit(
        law=law,
        constants={
            name: bootstrap.estimate(values[name][0], spread[name]) for name in law.constants
        },
        huber=float(huber),
        lack_of_fit=lack_of_fit(residual_M, log_y_M, points.cell, len(law.constants)),
        held_out=_held_out(law, points, hold_out) if hold_out else None,
        theta_P=theta_P,
        replicates_RxP=replicates_RxP,
        centre=centre,
        range={
            name: (float(points[name].min()), float(points[name].max())) for name in law.features
        },
    )


def as_json(value: Any) -> Any:
    """A result as JSON: dataclasses as objects, without the arrays that only predictions need."""
    if isinstance(value, Law):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = (field.name for field in dataclasses.fields(value))
        return {name: as_json(getattr(value, name)) for name in names if name not in _PREDICTION}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [as_json(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


_PREDICTION = ("theta_P", "replicates_RxP", "centre")


def largest_budget(flops_M: np.ndarray, rows: int) -> np.ndarray:
    """mask_M of the rows at, or above, the largest budget that `rows` rows reach. A lone giant is
    no budget.
    """
    return flops_M > TOP * np.sort(flops_M)[-min(rows, len(flops_M))]


def _logs(law, points):
    return {name: np.log(points[name]) for name in law.features}


def _check(law, points):
    runs, constants = len(set(points.cell.tolist())), len(law.constants)
    where = points.path + (
        "" if points.families() in ([], ["all"]) else f", family {'/'.join(points.families())}"
    )
    if runs < constants:
        raise ConfigError(
            f"{where}: {runs} different runs; {law} has {constants} constants and needs as many "
            "runs"
        )
    for name in law.features:
        if np.ptp(np.log(points[name])) < 1e-9:
            raise ConfigError(
                f"{where}: {name} is {points[name][0]:g} in every row; {law} needs it to vary"
            )


def _held_out(law, points, rows):
    top_M = largest_budget(points["flops"], rows)
    try:
        fitted = fit(law, points.where(~top_M), draws=0, seed=0, hold_out=0)
    except ConfigError:
        return None  # what is left is too little for the law
    last = points.where(top_M)
    predicted_M = fitted.predict(**{name: last[name] for name in law.features})
    return held_out(predicted_M, last[law.target], last["flops"].max())
