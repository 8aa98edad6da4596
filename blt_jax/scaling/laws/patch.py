"""Laws with the mean patch size T (bytes per patch or token) as a variable of the architecture.

At each training budget C a paraboloid in (log size, log T) gives the best size for every T, and the
best T. Through the former go N*(C, T) = N0 C^a' T^b' and B*(C, T) = B0 C^a T^b, the form of arXiv
2605.01188. A joint law of loss over size, bytes and T then answers: at this training budget and
this inference cost per byte, which patch and which size?

The joint law is ours: L = E + A T^gamma / N^alpha + B T^delta / D^beta + H T^eta. The last term is
what long patches cost at any size. Without it the best T could not depend on the budget: at the
best size for each T, sums of the two middle terms are a power of C times a power of T.
"""

import dataclasses

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, power_sums
from blt_jax.scaling.points import grouped
from blt_jax.scaling.power_law import PowerLaw, power_law, robust_linear
from blt_jax.scaling.power_sums import Law, Power, Term

JOINT = Law(
    "joint",
    "loss",
    (
        Term("E"),
        Term(
            "A",
            (
                Power("params", "alpha", starts=(0.2, 0.5)),
                Power("patch", "gamma", sign=1, starts=(0.0,)),
            ),
        ),
        Term(
            "B",
            (
                Power("data", "beta", starts=(0.2, 0.5)),
                Power("patch", "delta", sign=1, starts=(0.0,)),
            ),
        ),
        Term("H", (Power("patch", "eta", sign=1, starts=(0.5,)),)),
    ),
    levels=(1, 8),
)
# Forward FLOPs per byte: what runs once per patch, and what runs at every byte and grows with size
# in its own way.
COST = Law(
    "cost",
    "forward_flops_per_byte",
    (
        Term("F", (Power("params", "1", sign=1, fixed=1.0), Power("patch", "1", fixed=1.0))),
        Term("G", (Power("params", "z", sign=1, starts=(0.3, 1.0)),)),
    ),
    delta=1e-2,
)
SAME_PATCH = 1.03  # runs within this factor of bytes per patch are of one patch size
REACH = 10.0  # sizes are looked for this factor beyond those trained


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


@dataclasses.dataclass(frozen=True)
class BestSize:
    """The best size at one budget and one patch size."""

    budget: float
    patch: float
    params: bootstrap.Estimate
    data: bootstrap.Estimate


@dataclasses.dataclass(frozen=True, eq=False)
class PatchFit:
    """All of the laws; a power law is None where too few optima lie inside the runs."""

    optima: tuple[Optimum, ...]
    best_sizes: tuple[BestSize, ...]
    params: PowerLaw | None  # N*(C, T)
    data: PowerLaw | None  # B*(C, T)
    patch: PowerLaw | None  # T*(C)
    held_out: law_fit.HeldOut | None  # of N*(C, T) at the largest budget
    joint: law_fit.LawFit
    cost: law_fit.LawFit


def fit_patch_laws(points, *, draws, seed):
    """PatchFit of Points with params, data (bytes), flops, patch, loss. Raises ConfigError where
    runs are too few.
    """
    sizes = len(np.unique(grouped(points["patch"], SAME_PATCH)))
    if sizes < 3:
        raise ConfigError(
            f"{points.path}: {sizes} different patch sizes; laws with the patch size need three"
        )
    rng = np.random.default_rng(seed)
    optima, patch_of_budget, best_sizes, spread = [], [], [], []
    loss_RxM = _replicates(points, draws, rng)
    free = slice(1, None if bootstrap.free(loss_RxM[1:]) else 1)
    for budget in np.unique(points.budget):
        own_M = points.budget == budget
        optimum, patch_R, best_of_patch = _paraboloid(
            points.where(own_M), budget, loss_RxM[:, own_M], free
        )
        optima.append(optimum)
        patch_of_budget.append(patch_R)
        for patch, params_R, data_R in best_of_patch:
            own = (
                bootstrap.estimate(values_R[0], values_R[free]) for values_R in (params_R, data_R)
            )
            best_sizes.append(BestSize(float(budget), float(patch), *own))
            spread.append((params_R, data_R))
    laws = {"params": None, "data": None, "patch": None}
    held = None
    at = {
        "flops": np.array([best.budget for best in best_sizes]),
        "patch": np.array([best.patch for best in best_sizes]),
    }
    if len(best_sizes) > 3 and all(len(set(values)) > 1 for values in at.values()):
        for i, name in enumerate(("params", "data")):
            laws[name] = _law(name, at, np.stack([pair[i] for pair in spread], 1), rng)
        held = _held_out(at, np.array([best.params.value for best in best_sizes]), rng)
    patch_RxK = np.stack(patch_of_budget, 1)
    if np.isfinite(patch_RxK[0]).sum() >= 2:
        laws["patch"] = _law("patch", {"flops": np.unique(points.budget)}, patch_RxK, rng)
    joint = law_fit.fit(JOINT, points, draws=draws, seed=rng)
    per_byte = dict(points.values) | {COST.target: points["flops"] / (3 * points["data"])}
    cost = law_fit.fit(COST, dataclasses.replace(points, values=per_byte), draws=0, seed=rng)
    return PatchFit(tuple(optima), tuple(best_sizes), **laws, held_out=held, joint=joint, cost=cost)


def _law(name, at, values_RxM, rng):
    replicates = values_RxM[1:] if bootstrap.free(values_RxM[1:]) else values_RxM[:0]
    return power_law(name, at, values_RxM[0], replicates, rng)


def _held_out(at, params_M, rng):
    top_M = at["flops"] == at["flops"].max()
    rest = {name: values[~top_M] for name, values in at.items()}
    if (~top_M).sum() < 4 or len(set(rest["flops"])) < 2 or len(set(rest["patch"])) < 2:
        return None
    below = power_law("params", rest, params_M[~top_M], np.empty((0, (~top_M).sum())), rng)
    predicted_M = below.predict(*(values[top_M] for values in at.values()))
    return law_fit.held_out(predicted_M, params_M[top_M], at["flops"].max())


def _plane(points):
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


def _replicates(points, draws, rng):
    """loss_RxM: the measured losses, then replicates around the paraboloids of all budgets."""
    loss_M, fitted_M, constants = points["loss"], np.full(len(points), np.nan), 0
    for budget in np.unique(points.budget):
        own_M = points.budget == budget
        plane = _plane(points.where(own_M))
        if plane is not None:
            fitted_M[own_M], constants = (
                plane[0] @ robust_linear(plane[0], loss_M[own_M][None])[0],
                constants + 6,
            )
    loss_RxM, of_M = np.tile(loss_M, (draws + 1, 1)), np.isfinite(fitted_M)
    if of_M.any():
        told = fitted_M[of_M], loss_M[of_M], points.cell[of_M]
        loss_RxM[1:, of_M] = bootstrap.resampled(*told, constants, draws, rng)
    return loss_RxM


def _paraboloid(points, budget, loss_RxM, free):
    """(Optimum, patch_R, [(patch, params_R, data_R)]) at one budget; the first replicate is the fit
    itself.
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
    told = [
        bootstrap.estimate(r[0], r[free])
        for r in (params_R, patch_R, keep(c0 + (cx * x_R + ct * t_R) / 2))
    ]
    word = _word(bowl_R[0], inside_R[0], x_R[0] + x0, t_R[0] + t0, places)
    optimum = Optimum(float(budget), runs, *told, word)
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
    return optimum, patch_R, sizes


def _word(bowl, inside, x, t, places):
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


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best patch size and model at a training budget, and at an inference cost per byte if that
    is given.
    """

    budget: float
    inference: float  # forward FLOPs per byte
    patch: bootstrap.Estimate
    params: bootstrap.Estimate
    data: bootstrap.Estimate
    loss: bootstrap.Estimate
    words: str


def answer(found, budget, inference=None):
    """Answer by the joint law; training FLOPs = 3 x forward FLOPs per byte x bytes; T stays within
    what was trained.

    With `inference` fixed the bytes are fixed too, and a longer patch buys a larger model. Without
    it the cost per byte is chosen as well: the training optimum. Raises ConfigError where no size
    has that cost at any patch size.
    """
    low, high = found.joint.range["patch"]
    smallest, largest = found.joint.range["params"]
    patch_X = np.geomspace(low, high, 161)
    size_S = np.geomspace(smallest / REACH, largest * REACH, 241)
    if inference is None:
        params_X, patch_X = (grid.ravel() for grid in np.meshgrid(size_S, patch_X))
        cost_X = found.cost.predict(params=params_X, patch=patch_X)
    else:
        cost_TxS = found.cost.predict(params=size_S[None], patch=patch_X[:, None])
        params_X = np.array(
            [
                np.exp(np.interp(np.log(inference), np.log(own_S), np.log(size_S), np.nan, np.nan))
                for own_S in cost_TxS
            ]
        )
        patch_X, params_X = patch_X[np.isfinite(params_X)], params_X[np.isfinite(params_X)]
        if not len(patch_X):
            reach = f"{cost_TxS.min():.3g} to {cost_TxS.max():.3g}"
            raise ConfigError(
                f"inference = {inference:g} FLOPs per byte: the runs can tell of {reach} only"
            )
        cost_X = np.full(len(patch_X), float(inference))
    data_X = budget / (3 * cost_X)
    here = {"params": params_X, "patch": patch_X, "data": data_X}
    loss_X = found.joint.predict(**here)
    best, best_R, least_R = int(loss_X.argmin()), [], []
    logs = {name: np.log(values_X) for name, values_X in here.items()}
    design = found.joint.law.design(logs, found.joint.centre)
    for first in range(
        0, len(found.joint.replicates_RxP), 16
    ):  # all at once would be large on the fine grid
        log_RxX = power_sums.log_values(found.joint.replicates_RxP[first : first + 16], *design)
        best_R += log_RxX.argmin(1).tolist()
        least_R += np.exp(log_RxX.min(1)).tolist()
    told = {
        name: bootstrap.estimate(values_X[best], values_X[best_R])
        for name, values_X in here.items()
    }
    told["loss"] = bootstrap.estimate(loss_X[best], least_R)
    words = []
    if patch_X[best] in (patch_X.min(), patch_X.max()):
        edge = "largest" if patch_X[best] == patch_X.max() else "smallest"
        words.append(
            f"the {edge} patch size that can be told of is the best: the optimum may lie beyond"
        )
    if not smallest <= params_X[best] <= largest:
        words.append("the size is extrapolated")
    if not found.joint.range["data"][0] <= data_X[best] <= found.joint.range["data"][1]:
        words.append("the bytes are extrapolated")
    return Answer(
        float(budget), float(cost_X[best]), **told, words="; ".join(words) or "inside the runs"
    )
