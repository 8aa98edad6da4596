"""A family's frontier BPB = e + a / C^b, where two families' frontiers cross, and what one saves at
equal BPB.

The frontier runs through each budget's best size (the envelope), or through the BPB at a fixed
ratio of bytes to parameters, read from each budget's sizes. FLOPs are what the runs spent, in the
convention of the table.
"""

import dataclasses

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.scaling import law_fit as fit
from blt_jax.scaling.power_law import robust_linear
from blt_jax.scaling.power_sums import Law, Power, Term

# Few points, each already a mean or a minimum: nearly least squares, with a guard against one that
# is far off.
FRONTIER = Law(
    "frontier",
    "bpb",
    (Term("e"), Term("a", (Power("flops", "b", starts=(0.03, 0.1, 0.3)),))),
    delta=1e-2,
)
# a crossing is looked for this factor beyond the measured budgets, and called extrapolated there
REACH = 10.0


@dataclasses.dataclass(frozen=True)
class FrontierPoint:
    budget: float
    flops: float
    params: float | None  # None where the table has none
    bpb: bootstrap.Estimate


@dataclasses.dataclass(frozen=True, eq=False)
class FrontierFit:
    """One family's frontier. `basis` says which: "envelope", or "ratio R" of data to parameters."""

    family: str
    basis: str
    points: tuple[FrontierPoint, ...]
    refused: tuple[str, ...]  # budgets that gave no point, in words
    law: fit.LawFit


def best_sizes(points):
    """[(budget, mask_M)]: the rows of the size with the lowest mean BPB over seeds, at each budget
    of one family.
    """
    found = []
    for budget in np.unique(points.budget):
        cells = np.unique(points.cell[points.budget == budget])
        means = [points["bpb"][points.cell == cell].mean() for cell in cells]
        found.append((float(budget), points.cell == cells[np.argmin(means)]))
    return found


def fit_frontier(points, *, draws, seed, ratio=None):
    """FrontierFit of one family's Points, on the envelope or at `ratio` = data / params.

    Raises ConfigError with fewer than three budgets. With exactly three the law is exact and only
    seeds give intervals.
    """
    rng = np.random.default_rng(seed)
    found, refused, best_M = [], [], np.zeros(len(points), bool)
    for budget in np.unique(points.budget):
        one = points.where(points.budget == budget)
        # Only seeds are resampled inside a budget: its sizes are the choice, and budgets are
        # weighed by the law's fit.
        weights_RxM = bootstrap.weights(one.cell, len(set(one.cell.tolist())), draws, rng)
        weights_RxM = np.concatenate([np.ones((1, len(one))), weights_RxM])
        try:
            point, bpb_R, cells = (
                _best(one, weights_RxM) if ratio is None else _at_ratio(one, weights_RxM, ratio)
            )
        except ConfigError as error:
            refused.append(f"{_short(budget)} FLOPs: {error}")
            continue
        best_M |= np.isin(points.cell, cells)
        spread_R = bpb_R[1:] if bootstrap.free(weights_RxM) else ()
        found.append(
            (FrontierPoint(float(budget), *point, bootstrap.estimate(bpb_R[0], spread_R)), bpb_R)
        )
    family = "/".join(points.families())
    if len(found) < len(FRONTIER.constants):
        told = f"{points.path}: family {family}: {len(found)} budgets give a point; {FRONTIER} needs three"
        raise ConfigError(told + (f" ({'; '.join(refused)})" if refused else ""))
    bpb_RxK = np.stack([bpb_R for _, bpb_R in found], 1)
    frontier = dataclasses.replace(
        points,
        values={"flops": np.array([point.flops for point, _ in found]), "bpb": bpb_RxK[0]},
        family=np.full(len(found), family),
        budget=np.array([point.budget for point, _ in found]),
        cell=np.arange(len(found)),
    )
    law = fit.fit(FRONTIER, frontier, draws=draws, seed=rng, hold_out=1, targets_RxM=bpb_RxK[1:])
    if ratio is None:  # the seeds behind each point tell how much of what the law misses is noise
        best = points.where(best_M)
        residual_M = np.log(law.predict(flops=best["flops"]) / best["bpb"])
        lack = fit.lack_of_fit(residual_M, np.log(best["bpb"]), best.cell, len(FRONTIER.constants))
        law = dataclasses.replace(law, lack_of_fit=lack)
    basis = "envelope" if ratio is None else f"ratio {ratio:g}"
    return FrontierFit(family, basis, tuple(point for point, _ in found), tuple(refused), law)


def _best(points, weights_RxM):
    """((flops, params), bpb_R, cells) of the run with the lowest mean over seeds; every replicate
    chooses anew.
    """
    cells = np.unique(points.cell)
    own_KxM = points.cell[None] == cells[:, None]
    mean_RxK = (weights_RxM * points["bpb"]) @ own_KxM.T / (weights_RxM @ own_KxM.T)
    best = int(mean_RxK[0].argmin())
    params = float(points["params"][own_KxM[best]].mean()) if "params" in points.values else None
    return (float(points["flops"][own_KxM[best]].mean()), params), mean_RxK.min(1), cells[[best]]


def _at_ratio(points, weights_RxM, ratio):
    """The same at data / params = ratio, by a parabola (two sizes: a line) in its log. Raises
    ConfigError outside.
    """
    x_M = np.log(points["data"] / points["params"]) - np.log(ratio)
    sizes = len(np.unique(points["params"]))
    if not x_M.min() <= 0 <= x_M.max():
        low, high = np.exp([x_M.min(), x_M.max()]) * ratio
        raise ConfigError(f"its ratios of data to params are {low:.3g} to {high:.3g}")
    order = np.argsort(x_M, kind="stable")
    flops, params = (
        float(np.exp(np.interp(0.0, x_M[order], np.log(points[f])[order])))
        for f in ("flops", "params")
    )
    design_MxP = np.stack([x_M**power for power in range(min(sizes, 3))], 1)
    bpb_RxM = np.broadcast_to(points["bpb"], weights_RxM.shape)
    return (
        (flops, params),
        robust_linear(design_MxP, bpb_RxM, weights_RxM)[:, 0],
        np.unique(points.cell),
    )


@dataclasses.dataclass(frozen=True)
class Saving:
    """At the BPB that `b` has with `budget` FLOPs, `a` spends a `factor` less (below 1: more)."""

    budget: float
    bpb: float
    factor: bootstrap.Estimate
    extrapolated: bool  # a's FLOPs lie outside its measured budgets


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where the frontiers of families a and b meet. `budgets` may be empty; `words` say what was
    found.
    """

    a: str
    b: str
    budgets: tuple[bootstrap.Estimate, ...]
    share: float  # of the replicates that cross in the range looked at
    words: str
    savings: tuple[Saving, ...]
    # the smallest and largest budget that both have measured
    measured: tuple[float, float] | None = None


def crossing(a, b):
    """Crossing of two FrontierFits, looked for within REACH of the budgets that both have
    measured.
    """
    # Of budgets, not of FLOPs: of two families that spend one budget, to a step each, both have
    # measured it.
    low = max(min(p.budget for p in one.points) for one in (a, b))
    high = min(max(p.budget for p in one.points) for one in (a, b))
    if low > high:
        words = "their measured budgets do not overlap: nothing to compare"
        return Crossing(a.family, b.family, (), 0.0, words, ())
    flops_X = np.geomspace(low / REACH, high * REACH, 801)
    gap_X = np.log(b.law.predict(flops=flops_X) / a.law.predict(flops=flops_X))
    at = _crossings(flops_X, gap_X)
    draws = min(len(a.law.replicates_RxP), len(b.law.replicates_RxP))
    gap_RxX = np.log(
        b.law.predict_replicates(flops=flops_X)[:draws]
        / a.law.predict_replicates(flops=flops_X)[:draws]
    )
    crossings_R = [_crossings(flops_X, gap_X) for gap_X in gap_RxX]
    share = float(np.mean([len(found) > 0 for found in crossings_R])) if draws else 0.0
    budgets = [
        bootstrap.estimate(one[0], [_nearest(found, one) for found in crossings_R]) for one in at
    ]
    common = [p for p in b.points if low <= p.budget <= high]
    savings = tuple(_saving(a, b, p.flops, draws) for p in common)
    words = _words(a, b, at, gap_X, low, high)
    return Crossing(a.family, b.family, tuple(budgets), share, words, savings, (low, high))


def _crossings(x_X, y_X):
    """[(x, sign)] where y changes to that sign, by a straight line in log x."""
    i = np.flatnonzero(np.sign(y_X[:-1]) * np.sign(y_X[1:]) < 0)
    log_x = np.log(x_X)
    at = np.exp(log_x[i] + (log_x[i + 1] - log_x[i]) * y_X[i] / (y_X[i] - y_X[i + 1]))
    return list(zip(at.tolist(), np.sign(y_X[i + 1]).tolist(), strict=True))


def _nearest(found, one):
    """The crossing of a replicate that goes the same way as `one` and is nearest to it; NaN without
    any.
    """
    same = [at for at, sign in found if sign == one[1]]
    return min(same, key=lambda at: abs(np.log(at / one[0])), default=np.nan)


def _words(a, b, at, gap_X, low, high):
    if not at:
        better, other = (a, b) if gap_X.mean() > 0 else (b, a)
        return f"no crossing within a factor {REACH:g} of the measured budgets: {better.family} is below {other.family}"
    told = []
    for budget, _ in at:
        where = (
            "within the measured budgets"
            if low <= budget <= high
            else "extrapolated, beyond the measured budgets"
        )
        told.append(f"at {_short(budget)} FLOPs, {where}")
    first, then = (b, a) if gap_X[0] < 0 else (a, b)
    return f"{first.family} is better at small budgets; they cross {'; '.join(told)}" + (
        f"; then {then.family} is better" if len(at) == 1 else ""
    )


def _short(number):
    return f"{number:.3g}".replace("e+", "e")


def _saving(a, b, flops, draws):
    bpb = float(b.law.predict(flops=flops))
    needed = float(_flops_at(a.law, a.law.theta_P[None], np.array([bpb]))[0])
    bpb_R = b.law.predict_replicates(flops=flops)[:draws].ravel()
    needed_R = _flops_at(a.law, a.law.replicates_RxP[:draws], bpb_R)
    with np.errstate(
        divide="ignore"
    ):  # a law as good as flat has any BPB for nothing: no factor either
        factor = bootstrap.estimate(np.divide(flops, needed), flops / needed_R)
    measured = [p.flops for p in a.points]
    return Saving(float(flops), bpb, factor, not min(measured) <= needed <= max(measured))


def _flops_at(law_fit, theta_RxP, bpb_R):
    """FLOPs at which the frontier has reached a BPB; NaN where it never does."""
    found = law_fit.law.uncentred(theta_RxP, law_fit.centre)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        log_R = np.log(found["a"] / (bpb_R - found["e"])) / found["b"]
        return np.where((bpb_R > found["e"]) & (found["b"] > 0), np.exp(log_R), np.nan)
