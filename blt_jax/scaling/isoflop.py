"""The best size at each budget, and how it grows (Chinchilla, arXiv 2203.15556, approach 2).

At each budget a robust parabola in log size; its minimum counts where it lies inside the sizes that were trained.
Then N_opt = N0 C^a and D_opt = D0 C^b through the minima. Parabolas lean towards the middle of an uneven grid: centre
the grid on the minimum, within a factor of about four on either side, before trusting the exponents.
"""

import dataclasses

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.scaling.fit import HeldOut, held_out


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Of a parabola in log N through the sizes at one budget. `word` says in plain words what was found."""

    parameters: float | None
    bpb: float | None
    word: str
    coefficients: tuple[float, ...] | None = None


def minimum(parameters, loss):
    """Minimum over size at one budget, from at least three sizes; None values where it is not in the grid."""
    x_M, y_M = np.log(np.asarray(parameters, float)), np.asarray(loss, float)
    if len(set(x_M.tolist())) < 3:
        return Minimum(None, None, "too few sizes for a minimum")
    middle = x_M.mean()
    c0, c1, c2 = robust_linear(_parabola(x_M - middle), y_M[None])[0]
    coefficients = float(c2), float(c1 - 2 * c2 * middle), float(c0 - c1 * middle + c2 * middle**2)
    at, least, word = (one[0] for one in vertex(x_M, np.array([[c0, c1, c2]]), middle))
    if np.isnan(at):
        return Minimum(None, None, word, coefficients)
    return Minimum(float(np.exp(at)), float(least), word, coefficients)


def vertex(x_M, theta_Rx3, middle):
    """(x_R, value_R, word_R) of the minima of c0 + c1 (x - middle) + c2 (x - middle)^2; NaN outside the grid x_M."""
    c0, c1, c2 = theta_Rx3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at_R = middle - c1 / (2 * c2)
        inside_R = (c2 > 0) & (at_R > x_M.min()) & (at_R < x_M.max())
        least_R = np.where(inside_R, c0 - c1**2 / (4 * c2), np.nan)
    step = np.ptp(x_M)
    rises_R = c1 * step + c2 * ((x_M.max() - middle) ** 2 - (x_M.min() - middle) ** 2) > 0
    outside_R = np.where(rises_R, "outside the grid, towards smaller models", "outside the grid, towards larger models")
    return np.where(inside_R, at_R, np.nan), least_R, np.where(inside_R, "inside the grid", outside_R)


def robust_linear(design_MxP, y_RxM, weights_RxM=None, rounds=40):
    """theta_RxP of y = design theta by Huber's loss, all replicates together; rows that are NaN in y are left out.

    The turn from squares to sizes is at 1.345 times the scale of each replicate's residuals: their median size in a
    fit of least absolute values, of which as many as there are constants are zero and do not count. A replicate with
    fewer rows than constants is NaN.
    """
    weights_RxM = np.ones_like(y_RxM) if weights_RxM is None else np.broadcast_to(weights_RxM, y_RxM.shape)
    given_RxM = np.isfinite(y_RxM)
    weights_RxM, y_RxM = np.where(given_RxM, weights_RxM, 0.0), np.where(given_RxM, y_RxM, 0.0)
    constants = design_MxP.shape[1]
    theta_RxP = _weighted_least_squares(design_MxP, y_RxM, weights_RxM)
    if len(design_MxP) > constants:
        absolute = theta_RxP
        for _ in range(rounds):
            size_RxM = np.abs(y_RxM - absolute @ design_MxP.T)
            floor_R = 1e-6 * np.max(size_RxM, axis=1, keepdims=True) + 1e-300
            absolute = _weighted_least_squares(design_MxP, y_RxM, weights_RxM / np.maximum(size_RxM, floor_R))
        size_RxM = np.where(given_RxM, np.abs(y_RxM - absolute @ design_MxP.T), np.nan)
        counting_RxM = np.sort(size_RxM, axis=1)[:, constants:]
        empty_R = ~np.isfinite(counting_RxM).any(1)
        counting_RxM[empty_R] = np.inf  # as many rows as constants: the fit is exact, nothing is an outlier
        turn_Rx1 = 1.345 * np.nanquantile(counting_RxM, 0.5, axis=1, method="lower")[:, None] / 0.6745
        for _ in range(rounds):
            size_RxM = np.maximum(np.abs(y_RxM - theta_RxP @ design_MxP.T), 1e-300)
            trust_RxM = np.minimum(1.0, np.maximum(turn_Rx1, 1e-12) / size_RxM)
            theta_RxP = _weighted_least_squares(design_MxP, y_RxM, weights_RxM * trust_RxM)
    theta_RxP[given_RxM.sum(1) < constants] = np.nan
    return theta_RxP


def _weighted_least_squares(design_MxP, y_RxM, weights_RxM):
    root_RxM = np.sqrt(weights_RxM / np.maximum(weights_RxM.max(1, keepdims=True), 1e-300))
    # pinv, not solve: a replicate may leave nearly all weight on too few rows.
    inverse_RxPxM = np.linalg.pinv(root_RxM[:, :, None] * design_MxP, rcond=1e-9)
    return np.einsum("rpm,rm->rp", inverse_RxPxM, root_RxM * y_RxM)


def _parabola(x_M):
    return np.stack([np.ones_like(x_M), x_M, x_M**2], 1)


@dataclasses.dataclass(frozen=True)
class BudgetOptimum:
    """What the parabola at one budget says, with 90% intervals; None and a word where it says nothing."""

    budget: float
    sizes: int
    parameters: bootstrap.Estimate
    data: bootstrap.Estimate
    loss: bootstrap.Estimate
    word: str


@dataclasses.dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = constant x prod(feature^exponent), straight in logs, with 90% intervals."""

    target: str
    constant: bootstrap.Estimate
    exponents: dict  # feature -> bootstrap.Estimate
    rms: float  # of log residuals
    points: int
    theta_P: np.ndarray
    replicates_RxP: np.ndarray
    centre: np.ndarray

    def predict(self, *features):
        """Values at features (in the order of `exponents`), broadcast together."""
        return np.exp(self._log(self.theta_P[None], features)[0])

    def predict_replicates(self, *features):
        return np.exp(self._log(self.replicates_RxP, features))

    def band(self, *features):
        """(low, value, high): the 90% band of the law; None for both ends without any freedom."""
        if not len(self.replicates_RxP):
            return None, self.predict(*features), None
        low, high = bootstrap.interval(self.predict_replicates(*features))
        return low, self.predict(*features), high

    def _log(self, theta_RxP, features):
        arrays = np.broadcast_arrays(*(np.log(np.asarray(feature, float)) for feature in features))
        x_FxX = np.stack([array.ravel() for array in arrays]) - self.centre[:, None]
        return (theta_RxP[:, :1] + theta_RxP[:, 1:] @ x_FxX).reshape(-1, *arrays[0].shape)


def power_law(target, features, y_M, y_RxM, rng):
    """PowerLaw of y on {feature: values_M}; y_RxM are y's replicates (empty: no freedom). NaN rows are left out.

    Replicates also weigh the rows at random, so that what the law misses between its points shows in the interval.
    """
    x_MxF = np.log(np.stack(list(features.values()), 1))
    given_M = np.isfinite(y_M)
    centre = x_MxF[given_M].mean(0)
    design_MxP = np.column_stack([np.ones(len(x_MxF)), x_MxF - centre])
    theta_P = robust_linear(design_MxP, np.log(y_M)[None])[0]
    if len(y_RxM):
        weights_RxM = bootstrap.weights(np.arange(len(y_M)), design_MxP.shape[1], len(y_RxM), rng)
        replicates_RxP = robust_linear(design_MxP, np.log(y_RxM), weights_RxM)
    else:
        replicates_RxP = np.empty((0, design_MxP.shape[1]))
    constant = lambda theta: np.exp(theta[..., 0] - theta[..., 1:] @ centre)  # noqa: E731
    residual_M = (design_MxP @ theta_P - np.log(y_M))[given_M]
    return PowerLaw(
        target=target,
        constant=bootstrap.estimate(constant(theta_P), constant(replicates_RxP)),
        exponents={
            name: bootstrap.estimate(theta_P[i + 1], replicates_RxP[:, i + 1]) for i, name in enumerate(features)
        },
        rms=float(np.sqrt(np.mean(residual_M**2))),
        points=int(given_M.sum()),
        theta_P=theta_P,
        replicates_RxP=replicates_RxP,
        centre=centre,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class IsoflopFit:
    """Minima by budget and the power laws through them; a law is None with fewer than two minima inside the grid."""

    minima: tuple[BudgetOptimum, ...]
    parameters: PowerLaw | None
    data: PowerLaw | None
    held_out: HeldOut | None  # of N_opt at the largest budget


def fit(points, *, draws, seed):
    """IsoflopFit of one family's Points. Raises ConfigError where no budget has three sizes."""
    budgets = np.unique(points.budget)
    by_budget = [points.where(points.budget == budget) for budget in budgets]
    sizes = [len(np.unique(one["params"])) for one in by_budget]
    if max(sizes) < 3:
        raise ConfigError(f"{points.path}: no budget has three sizes; a parabola needs them at one budget")
    rng = np.random.default_rng(seed)
    minima, size_RxM, data_RxM = [], [], []
    for budget, count, one in zip(budgets, sizes, by_budget, strict=True):
        if count < 3:
            none = bootstrap.Estimate(None, None, None, 0.0)
            minima.append(BudgetOptimum(float(budget), count, none, none, none, "too few sizes for a minimum"))
            size_RxM.append(np.full(draws + 1, np.nan))
            data_RxM.append(np.full(draws + 1, np.nan))
            continue
        weights_RxM = np.concatenate([np.ones((1, len(one))), bootstrap.weights(one.cell, 3, draws, rng)])
        size_R, data_R, loss_R, word = _optimum(one, weights_RxM)
        spread = draws if bootstrap.free(weights_RxM) else 0
        told = [bootstrap.estimate(value_R[0], value_R[1 : spread + 1]) for value_R in (size_R, data_R, loss_R)]
        minima.append(BudgetOptimum(float(budget), count, *told, word))
        size_RxM.append(size_R)
        data_RxM.append(data_R)
    size_RxM, data_RxM = np.array(size_RxM).T, np.array(data_RxM).T
    free = np.nanmax(np.ptp(size_RxM, axis=0)) > 0 if np.isfinite(size_RxM[0]).any() else False
    held = None
    if np.isfinite(size_RxM[0]).sum() < 2:
        return IsoflopFit(tuple(minima), None, None, None)
    laws = [
        power_law(name, {"flops": budgets}, values_RxM[0], values_RxM[1:] if free else values_RxM[:0], rng)
        for name, values_RxM in (("params", size_RxM), ("data", data_RxM))
    ]
    found = np.flatnonzero(np.isfinite(size_RxM[0]))
    if len(found) >= 3:
        rest, last = found[:-1], found[-1]
        below = power_law("params", {"flops": budgets[rest]}, size_RxM[0, rest], size_RxM[:0, rest], rng)
        held = held_out(below.predict(budgets[[last]]), size_RxM[0, [last]], budgets[last])
    return IsoflopFit(tuple(minima), *laws, held)


def _optimum(points, weights_RxM):
    """(params_R, data_R, loss_R, word of the first) at one budget; NaN where refused."""
    x_M, y_M = np.log(points["params"]), points["loss"]
    middle = x_M.mean()
    theta_Rx3 = robust_linear(_parabola(x_M - middle), np.broadcast_to(y_M, weights_RxM.shape), weights_RxM)
    x_R, loss_R, words = vertex(x_M, theta_Rx3, middle)
    order = np.argsort(x_M, kind="stable")
    data_R = np.interp(x_R, x_M[order], np.log(points["data"])[order])
    return np.exp(x_R), np.exp(data_R), loss_R, str(words[0])
