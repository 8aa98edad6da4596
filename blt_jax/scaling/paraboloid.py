"""Paraboloids in (log size, log mean patch size) through the runs of one training budget: the best
size and patch, and the best size for each patch.
"""

import dataclasses

import numpy as np

from blt_jax.scaling import bootstrap
from blt_jax.scaling.points import Points, grouped
from blt_jax.scaling.power_law import robust_linear

SAME_PATCH = 1.03  # runs within this factor of bytes per patch are of one patch size


@dataclasses.dataclass(frozen=True)
class Optimum:
    """Of the paraboloid at one budget, 90% intervals; without a value where it is not inside the
    runs: see `word`.
    """

    budget: float
    runs: int
    params: bootstrap.Estimate
    patch: bootstrap.Estimate
    loss: bootstrap.Estimate
    word: str


def _plane(
    points: Points,
) -> tuple[np.ndarray, tuple[float, float], np.ndarray] | None:
    """(design_MxP of a paraboloid in (log size, log patch), its centre, the different places), or
    None: too few.
    """
    size_M, patch_M = np.log(points["params"]), np.log(grouped(points["patch"], SAME_PATCH))
    places = np.unique(np.stack([size_M, patch_M], 1), axis=0)
    if len(places) < 6 or min(len(np.unique(column)) for column in places.T) < 3:
        return None
    x_M, t_M = size_M - size_M.mean(), patch_M - patch_M.mean()
    design_MxP = np.stack([np.ones_like(x_M), x_M, t_M, x_M**2, x_M * t_M, t_M**2], 1)
    if np.linalg.matrix_rank(design_MxP, tol=1e-6) < 6:  # sizes and patch sizes that go together
        return None
    return design_MxP, (size_M.mean(), patch_M.mean()), places


def replicates(points: Points, draws: int, rng: np.random.Generator) -> np.ndarray:
    """loss_RxM: the measured losses, then replicates around the paraboloids of all budgets."""
    loss_M, fitted_M, constants = points["loss"], np.full(len(points), np.nan), 0
    for budget in np.unique(points.budget):
        own_M = points.budget == budget
        plane = _plane(points.where(own_M))
        if plane is not None:
            fitted_M[own_M] = plane[0] @ robust_linear(plane[0], loss_M[own_M][None])[0]
            constants += 6
    loss_RxM, of_M = np.tile(loss_M, (draws + 1, 1)), np.isfinite(fitted_M)
    if of_M.any():
        measured = fitted_M[of_M], loss_M[of_M], points.cell[of_M]
        loss_RxM[1:, of_M] = bootstrap.resampled(*measured, constants, draws, rng)
    return loss_RxM


def optimum(
    points: Points, budget: float, loss_RxM: np.ndarray, free: slice
) -> tuple[Optimum, np.ndarray, list[tuple[float, np.ndarray, np.ndarray]]]:
    """(Optimum, patch_R, [(patch, params_R, data_R)]) at one budget. The first replicate is the fit
    itself; `free`: those that give intervals.
    """
    plane, refused, none = _plane(points), np.full(len(loss_RxM), np.nan), bootstrap.estimate(None)
    runs = len(set(points.cell.tolist()))
    if plane is None:
        word = "needs six different runs, of three sizes and three patch sizes that vary apart"
        return Optimum(float(budget), runs, none, none, none, word), refused, []
    from scipy import spatial  # takes longer to import than all that comes before the fit

    design_MxP, (x0, t0), places = plane
    size_M, byte_M = np.log(points["params"]), np.log(points["data"])
    patch_M = np.log(grouped(points["patch"], SAME_PATCH))
    theta_RxP = robust_linear(design_MxP, loss_RxM)
    c0, cx, ct, cxx, cxt, ctt = theta_RxP.T
    determinant_R = 4 * cxx * ctt - cxt**2
    with np.errstate(divide="ignore", invalid="ignore"):
        x_R, t_R = (
            (cxt * ct - 2 * ctt * cx) / determinant_R,
            (cxt * cx - 2 * cxx * ct) / determinant_R,
        )
    bowl_R = (determinant_R > 0) & (cxx > 0)
    hull = spatial.Delaunay(np.stack([places[:, 0] - x0, places[:, 1] - t0], 1))
    inside_R = bowl_R & (
        hull.find_simplex(np.nan_to_num(np.stack([x_R, t_R], 1), posinf=1e9, neginf=-1e9)) >= 0
    )
    keep = lambda values_R: np.where(inside_R, values_R, np.nan)
    params_R, patch_R = (
        keep(np.exp(x0 + np.clip(x_R, -50, 50))),
        keep(np.exp(t0 + np.clip(t_R, -50, 50))),
    )
    params, best_patch, loss = (
        bootstrap.estimate(r[0], r[free])
        for r in (params_R, patch_R, keep(c0 + (cx * x_R + ct * t_R) / 2))
    )
    word = _word(bowl_R[0], inside_R[0], x_R[0] + x0, t_R[0] + t0, places)
    best = Optimum(float(budget), runs, params, best_patch, loss, word)
    sizes = []
    for patch in np.unique(patch_M):
        own_M = patch_M == patch
        at_R = x0 - (cx + cxt * (patch - t0)) / (2 * cxx)
        at_R = np.where(
            (cxx > 0) & (at_R > size_M[own_M].min()) & (at_R < size_M[own_M].max()), at_R, np.nan
        )
        if np.isnan(at_R[0]):
            continue
        order = np.argsort(size_M[own_M], kind="stable")
        data_R = np.exp(np.interp(at_R, size_M[own_M][order], byte_M[own_M][order]))
        sizes.append((np.exp(patch), np.exp(at_R), data_R))
    return best, patch_R, sizes


def _word(bowl: bool, inside: bool, x: float, t: float, places: np.ndarray) -> str:
    if inside:
        return "inside the runs"
    if not bowl:
        return "no minimum: the surface is not a bowl"
    (x_low, t_low), (x_high, t_high) = places.min(0), places.max(0)
    towards = [f"{'smaller' if x < x_low else 'larger'} models"] * (not x_low <= x <= x_high)
    towards += [f"{'shorter' if t < t_low else 'longer'} patches"] * (not t_low <= t <= t_high)
    return "outside the runs, towards " + (
        " and ".join(towards) or "sizes that were not trained at this patch size"
    )
