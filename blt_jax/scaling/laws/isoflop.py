"""The best size at each budget, and how it grows (Chinchilla, arXiv 2203.15556, approach 2).

At each budget a robust parabola in log size; its minimum counts where it lies inside the sizes that
were trained. Then N_opt = N0 C^a and D_opt = D0 C^b through the minima. Parabolas lean towards the
middle of an uneven grid: centre the grid on the minimum, within a factor of about four on either
side, before trusting the exponents.
"""

import dataclasses

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.scaling.law_fit import HeldOut, held_out
from blt_jax.scaling.power_law import PowerLaw, power_law, robust_linear


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Of a parabola in log N through the sizes at one budget. `word` says in plain words what was
    found.
    """

    parameters: float | None
    bpb: float | None
    word: str
    coefficients: tuple[float, ...] | None = None


def minimum(parameters, loss):
    """Minimum over size at one budget, from at least three sizes; None values where it is not in
    the grid.
    """
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
    """(x_R, value_R, word_R) of the minima of c0 + c1 (x - middle) + c2 (x - middle)^2; NaN outside
    the grid x_M.
    """
    c0, c1, c2 = theta_Rx3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        at_R = middle - c1 / (2 * c2)
        inside_R = (c2 > 0) & (at_R > x_M.min()) & (at_R < x_M.max())
        least_R = np.where(inside_R, c0 - c1**2 / (4 * c2), np.nan)
    step = np.ptp(x_M)
    rises_R = c1 * step + c2 * ((x_M.max() - middle) ** 2 - (x_M.min() - middle) ** 2) > 0
    outside_R = np.where(
        rises_R,
        "outside the grid, towards smaller models",
        "outside the grid, towards larger models",
    )
    return (
        np.where(inside_R, at_R, np.nan),
        least_R,
        np.where(inside_R, "inside the grid", outside_R),
    )


def _parabola(x_M):
    return np.stack([np.ones_like(x_M), x_M, x_M**2], 1)


@dataclasses.dataclass(frozen=True)
class BudgetOptimum:
    """What the parabola at one budget says, with 90% intervals; None and a word where it says
    nothing.
    """

    budget: float
    sizes: int
    params: bootstrap.Estimate
    data: bootstrap.Estimate
    loss: bootstrap.Estimate
    word: str


@dataclasses.dataclass(frozen=True, eq=False)
class IsoflopFit:
    """Minima by budget and the power laws through them; a law is None with fewer than two minima
    inside the grid.
    """

    minima: tuple[BudgetOptimum, ...]
    params: PowerLaw | None
    data: PowerLaw | None
    held_out: HeldOut | None  # of N_opt at the largest budget


def fit(points, *, draws, seed):
    """IsoflopFit of one family's Points. Raises ConfigError where no budget has three sizes."""
    rng, own = np.random.default_rng(seed), {}
    for budget in np.unique(points.budget):
        own[float(budget)] = points.budget == budget
    sizes = {budget: len(np.unique(points["params"][own_M])) for budget, own_M in own.items()}
    usable = [budget for budget in own if sizes[budget] >= 3]
    if not usable:
        raise ConfigError(
            f"{points.path}: no budget has three sizes; a parabola needs them at one budget"
        )
    fitted_M = np.full(len(points), np.nan)
    for budget in usable:
        x_M = np.log(points["params"][own[budget]])
        design_Mx3 = _parabola(x_M - x_M.mean())
        fitted_M[own[budget]] = (
            design_Mx3 @ robust_linear(design_Mx3, points["loss"][own[budget]][None])[0]
        )
    inside_M = np.isfinite(fitted_M)
    y_RxM = np.full((draws + 1, len(points)), np.nan)
    y_RxM[0] = points["loss"]
    y_RxM[1:, inside_M] = bootstrap.resampled(
        fitted_M[inside_M],
        points["loss"][inside_M],
        points.cell[inside_M],
        3 * len(usable),
        draws,
        rng,
    )
    spread = draws if bootstrap.free(y_RxM[1:]) else 0
    minima, size_RxK, data_RxK = (
        [],
        np.full((draws + 1, len(own)), np.nan),
        np.full((draws + 1, len(own)), np.nan),
    )
    for k, (budget, own_M) in enumerate(own.items()):
        if budget not in usable:
            told, word = [bootstrap.estimate(None)] * 3, "too few sizes for a minimum"
        else:
            *values, word = _optimum(points.where(own_M), y_RxM[:, own_M])
            size_RxK[:, k], data_RxK[:, k], _ = values
            told = [bootstrap.estimate(value_R[0], value_R[1 : spread + 1]) for value_R in values]
        minima.append(BudgetOptimum(budget, sizes[budget], *told, word))
    if np.isfinite(size_RxK[0]).sum() < 2:
        return IsoflopFit(tuple(minima), None, None, None)
    at = {"flops": np.array(list(own))}
    laws = (
        power_law(name, at, values_RxK[0], values_RxK[1 : spread + 1], rng)
        for name, values_RxK in (("params", size_RxK), ("data", data_RxK))
    )
    return IsoflopFit(tuple(minima), *laws, _held_out(at["flops"], size_RxK[0], rng))


def _held_out(budget_K, size_K, rng):
    found = np.flatnonzero(np.isfinite(size_K))
    if len(found) < 3:
        return None
    rest, last = found[:-1], found[-1:]
    below = power_law(
        "params", {"flops": budget_K[rest]}, size_K[rest], np.empty((0, len(rest))), rng
    )
    return held_out(below.predict(budget_K[last]), size_K[last], budget_K[last[0]])


def _optimum(points, y_RxM):
    """(params_R, data_R, loss_R, word of the first) at one budget; NaN where refused."""
    x_M = np.log(points["params"])
    middle = x_M.mean()
    x_R, loss_R, words = vertex(x_M, robust_linear(_parabola(x_M - middle), y_RxM), middle)
    order = np.argsort(x_M, kind="stable")
    data_R = np.interp(x_R, x_M[order], np.log(points["data"])[order])
    return np.exp(x_R), np.exp(data_R), loss_R, str(words[0])
