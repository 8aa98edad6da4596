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
from collections.abc import Mapping
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, laws, paraboloid, power_sums, tables
from blt_jax.scaling.law_fit import LawFit
from blt_jax.scaling.number_format import number
from blt_jax.scaling.points import Points, grouped
from blt_jax.scaling.power_law import PowerLaw, power_law
from blt_jax.scaling.power_sums import Law, Power, Term
from blt_jax.scaling.tables import Table


def _growing(exponent: str, start: float) -> Power:
    """T^exponent."""
    return Power("patch", exponent, sign=1, starts=(start,))


JOINT = Law(
    "joint",
    "loss",
    (
        Term("E"),
        Term("A", (Power("params", "alpha", starts=(0.2, 0.5)), _growing("gamma", 0.0))),
        Term("B", (Power("data", "beta", starts=(0.2, 0.5)), _growing("delta", 0.0))),
        Term("H", (_growing("eta", 0.5),)),
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
REACH = 10.0  # sizes are looked for this factor beyond those trained


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

    optima: tuple[paraboloid.Optimum, ...]
    best_sizes: tuple[BestSize, ...]
    params: PowerLaw | None  # N*(C, T)
    data: PowerLaw | None  # B*(C, T)
    patch: PowerLaw | None  # T*(C)
    held_out: law_fit.HeldOut | None  # of N*(C, T) at the largest budget
    joint: law_fit.LawFit
    cost: law_fit.LawFit


def fit_patch_laws(points: Points, *, draws: int, seed: Any) -> PatchFit:
    """PatchFit of Points with params, data (bytes), flops, patch, loss. Raises ConfigError where
    runs are too few.
    """
    sizes = len(np.unique(grouped(points["patch"], paraboloid.SAME_PATCH)))
    if sizes < 3:
        raise ConfigError(
            f"{points.path}: {sizes} different patch sizes; laws with the patch size need three"
        )
    rng = np.random.default_rng(seed)
    optima, patch_of_budget, best_sizes, spread = [], [], [], []
    loss_RxM = paraboloid.replicates(points, draws, rng)
    free = slice(1, None if bootstrap.free(loss_RxM[1:]) else 1)
    for budget in np.unique(points.budget):
        own_M = points.budget == budget
        optimum, patch_R, best_of_patch = paraboloid.optimum(
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
    powers: dict[str, PowerLaw | None] = {"params": None, "data": None, "patch": None}
    held = None
    at = {
        "flops": np.array([best.budget for best in best_sizes]),
        "patch": np.array([best.patch for best in best_sizes]),
    }
    if len(best_sizes) > 3 and all(len(set(values)) > 1 for values in at.values()):
        for i, name in enumerate(("params", "data")):
            powers[name] = _law(name, at, np.stack([pair[i] for pair in spread], 1), rng)
        held = _held_out(at, np.array([best.params.value for best in best_sizes]), rng)
    patch_RxK = np.stack(patch_of_budget, 1)
    if np.isfinite(patch_RxK[0]).sum() >= 2:
        powers["patch"] = _law("patch", {"flops": np.unique(points.budget)}, patch_RxK, rng)
    joint = law_fit.fit(JOINT, points, draws=draws, seed=rng)
    per_byte = dict(points.values) | {COST.target: points["flops"] / (3 * points["data"])}
    cost = law_fit.fit(COST, dataclasses.replace(points, values=per_byte), draws=0, seed=rng)
    return PatchFit(
        tuple(optima), tuple(best_sizes), **powers, held_out=held, joint=joint, cost=cost
    )


def _law(
    name: str, at: dict[str, np.ndarray], values_RxM: np.ndarray, rng: np.random.Generator
) -> PowerLaw:
    replicates = values_RxM[1:] if bootstrap.free(values_RxM[1:]) else values_RxM[:0]
    return power_law(name, at, values_RxM[0], replicates, rng)


def _held_out(
    at: dict[str, np.ndarray], params_M: np.ndarray, rng: np.random.Generator
) -> law_fit.HeldOut | None:
    top_M = at["flops"] == at["flops"].max()
    rest = {name: values[~top_M] for name, values in at.items()}
    if (~top_M).sum() < 4 or len(set(rest["flops"])) < 2 or len(set(rest["patch"])) < 2:
        return None
    below = power_law("params", rest, params_M[~top_M], np.empty((0, (~top_M).sum())), rng)
    predicted_M = below.predict(*(values[top_M] for values in at.values()))
    return law_fit.held_out(predicted_M, params_M[top_M], at["flops"].max())


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best patch size and model at a training budget, and at a cost of inference if given."""

    budget: float
    inference: float  # forward FLOPs per byte
    patch: bootstrap.Estimate
    params: bootstrap.Estimate
    data: bootstrap.Estimate
    loss: bootstrap.Estimate
    words: str


def answer(fit: PatchFit, budget: float, inference: float | None = None) -> Answer:
    """Answer by the joint law; training FLOPs = 3 x forward FLOPs per byte x bytes; T stays within
    what was trained.

    With `inference` fixed the bytes are fixed too, and a longer patch buys a larger model. Without
    it the cost per byte is chosen as well: the training optimum. Raises ConfigError where no size
    has that cost at any patch size.
    """
    low, high = fit.joint.range["patch"]
    smallest, largest = fit.joint.range["params"]
    patch_X = np.geomspace(low, high, 161)
    size_S = np.geomspace(smallest / REACH, largest * REACH, 241)
    if inference is None:
        params_X, patch_X = (grid.ravel() for grid in np.meshgrid(size_S, patch_X))
        cost_X = fit.cost.predict(params=params_X, patch=patch_X)
    else:
        cost_TxS = fit.cost.predict(params=size_S[None], patch=patch_X[:, None])
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
    loss_X = fit.joint.predict(**here)
    best, best_R, least_R = int(loss_X.argmin()), [], []
    logs = {name: np.log(values_X) for name, values_X in here.items()}
    design = fit.joint.law.design(logs, fit.joint.centre)
    for first in range(0, len(fit.joint.replicates_RxP), 16):  # all at once would be large
        log_RxX = power_sums.log_values(fit.joint.replicates_RxP[first : first + 16], *design)
        best_R += log_RxX.argmin(1).tolist()
        least_R += np.exp(log_RxX.min(1)).tolist()
    estimates = {
        name: bootstrap.estimate(values_X[best], values_X[best_R])
        for name, values_X in here.items()
    }
    estimates["loss"] = bootstrap.estimate(loss_X[best], least_R)
    words = []
    if patch_X[best] in (patch_X.min(), patch_X.max()):
        edge = "largest" if patch_X[best] == patch_X.max() else "smallest"
        words.append(f"the {edge} patch size within reach is the best: the optimum may lie beyond")
    if not smallest <= params_X[best] <= largest:
        words.append("the size is extrapolated")
    if not fit.joint.range["data"][0] <= data_X[best] <= fit.joint.range["data"][1]:
        words.append("the bytes are extrapolated")
    return Answer(
        float(budget), float(cost_X[best]), **estimates, words="; ".join(words) or "inside the runs"
    )


class PatchLaws(laws.Law):
    """All families as one architecture that differs in bytes per patch or token alone.

    The result is {"patch": PatchFit, "answers": [Answer]}.
    """

    name = "patch"
    title = "patch size"
    says = "N*(C, T), B*(C, T), T*(C) with mean patch size T; the best at --budget, --inference"
    needs = ("params", "data", "flops", "loss", "patch")
    options = {
        "budget": "Training FLOPs to answer for (patch); default: the largest.",
        "inference": "Forward FLOPs per byte to answer for (patch).",
    }

    def fit(self, table: Points, options: laws.Options, known: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ConfigError for fewer than three patch sizes."""
        fit = fit_patch_laws(table, draws=options.draws, seed=options.seed)
        budget, inference = options.get("budget") or table.budget.max(), options.get("inference")
        answers = [answer(fit, budget)]
        if inference:
            answers.append(answer(fit, budget, inference))
        return {"patch": fit, "answers": answers}

    def show(self, result: dict[str, Any], view: laws.View) -> list[Table | str]:
        """Optima, power laws, the joint law and what it answers."""
        fit: PatchFit = result["patch"]
        return [
            _optima(fit),
            *_powers(fit),
            tables.held_out_line(fit.held_out, "N*"),
            tables.constants(str(fit.joint.law), fit.joint.constants),
            *tables.fit_lines(fit.joint),
            f"cost: {fit.cost.law}, rms of logs {fit.cost.lack_of_fit.rms:.2g}",
            _answers(result["answers"]),
        ]

    def figure(self, result: dict[str, Any], view: laws.View) -> Any:
        """Best patch size against budget, and best size for each patch size."""
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        from blt_jax.scaling import figures
        from blt_jax.scaling.looks import COLOURS, MARKERS, Look

        fit: PatchFit = result["patch"]
        with figures.paper():
            figure, [axes] = figures.panels(figures.WIDTH, 3.2, 1, 2)
            inside = [best for best in fit.optima if best.patch.value is not None]
            budgets = sorted({best.budget for best in fit.optima})
            flops_X = np.geomspace(budgets[0], budgets[-1] * figures.FURTHER, 100)
            look = Look("optimum of paraboloid", COLOURS[0], MARKERS[0])
            if inside:
                flops_K, patch_K = [o.budget for o in inside], [o.patch for o in inside]
                figures.measured(axes[0], flops_K, patch_K, look, look.label)
            if fit.patch:
                figures.band(axes[0], flops_X, fit.patch.band(flops_X), look, budgets[-1])
            sizes = sorted({best.patch for best in fit.best_sizes})
            for i, patch in enumerate(sizes):
                share = 0.05 + 0.85 * i / max(len(sizes) - 1, 1)
                colour = to_hex(colormaps["viridis"](share))
                look = Look(f"T = {patch:.3g}", colour, MARKERS[i % len(MARKERS)])
                own = [best for best in fit.best_sizes if best.patch == patch]
                flops_K, params_K = [best.budget for best in own], [best.params for best in own]
                figures.measured(axes[1], flops_K, params_K, look, look.label)
                if fit.params:
                    band = fit.params.band(flops_X, patch)
                    figures.band(axes[1], flops_X, band, look, budgets[-1])
            figures.flops_panels(figure, axes, ("best bytes per patch", "best parameters"))
        return figure

    def sections(self, result: dict[str, Any] | None, view: laws.View) -> dict[str, laws.Section]:
        """Folded: all that the terminal shows, and the figure."""
        if not result:
            return {}
        note = (
            "All families are taken as one architecture that differs in bytes per patch (or token) "
            "T alone; where they differ in more, read this as a description."
        )
        alt = "Best patch size against budget; best size by budget and patch size"
        content = (note, *self.show(result, view))
        figure = self.figure(result, view)
        return {"patch_laws": laws.Section("Laws of the patch size", content, figure, alt)}

    def fits(self, result: dict[str, Any] | None) -> list[tuple[str | None, LawFit]]:
        """The joint law."""
        return [(None, result["patch"].joint)] if result else []

    def constants(self, result: Any) -> list[tuple[str, str | None, str, bootstrap.Estimate]]:
        """None: its section shows them."""
        return []

    def summary(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """PatchFit, and the answer at the largest budget; None for both where it was refused."""
        return {"patch": result and result["patch"], "answer": result and result["answers"][0]}


def _optima(fit: PatchFit) -> Table:
    rows = [
        (number(best.budget), str(best.runs), tables.cell(best.patch), tables.cell(best.params))
        + (number(best.loss.value), best.word)
        for best in fit.optima
    ]
    header = ("FLOPs", "runs", "T* (90% interval)", "N* (90% interval)", "loss", "optimum lies")
    return Table("optimum of the paraboloid by budget", header, tuple(rows))


def _powers(fit: PatchFit) -> list[Table | str]:
    rows, lines = {}, []
    for name, law in (("N*", fit.params), ("B*", fit.data), ("T*", fit.patch)):
        if law is None:
            lines.append(f"{name}: too few optima inside the runs for a law")
        else:
            rows[f"{name}: constant"] = law.constant
            for feature, exponent in law.exponents.items():
                rows[f"{name}: {'C' if feature == 'flops' else 'T'}^"] = exponent
    title = "N* = N0 C^a T^b, B* = B0 C^a T^b, T* = T0 C^a"
    return [*([tables.constants(title, rows)] if rows else []), *lines]


def _answers(answers: list[Answer]) -> Table:
    rows = [
        (number(best.budget), number(best.inference), tables.cell(best.patch))
        + (tables.cell(best.params), number(best.data.value), number(best.loss.value), best.words)
        for best in answers
    ]
    header = ("FLOPs", "forward FLOPs/byte", "T (90% interval)", "N (90% interval)", "bytes")
    title = "best by the joint law (T within what was trained)"
    return Table(title, (*header, "loss", "optimum lies"), tuple(rows))
