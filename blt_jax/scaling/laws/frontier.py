"""A family's frontier BPB = e + a / C^b.

It runs through each budget's best size (the envelope), or through the BPB at a fixed
ratio of bytes to parameters, read from each budget's sizes. FLOPs are what the runs spent, in the
convention of the table.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, laws, tables
from blt_jax.scaling.law_fit import LawFit
from blt_jax.scaling.number_format import brief, count, number
from blt_jax.scaling.points import Points, best_sizes
from blt_jax.scaling.power_law import robust_linear
from blt_jax.scaling.power_sums import Law, Power, Term
from blt_jax.scaling.tables import Cell, Table

# Few points, each already a mean or a minimum: nearly least squares, with a guard against one that
# is far off.
FRONTIER = Law(
    "frontier",
    "bpb",
    (Term("e"), Term("a", (Power("flops", "b", starts=(0.03, 0.1, 0.3)),))),
    delta=1e-2,
)


@dataclasses.dataclass(frozen=True)
class FrontierPoint:
    """The frontier at one budget."""

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
    law: LawFit


def fit_frontier(
    points: Points, *, draws: int, seed: Any, ratio: float | None = None
) -> FrontierFit:
    """FrontierFit of one family's Points, on the envelope or at `ratio` = data / params.

    Raises ConfigError with fewer than three budgets. With exactly three the law is exact and only
    seeds give intervals.
    """
    rng = np.random.default_rng(seed)
    refused, best_M = [], np.zeros(len(points), bool)
    frontier_points: list[tuple[FrontierPoint, np.ndarray]] = []
    for budget in np.unique(points.budget):
        runs = points.where(points.budget == budget)
        # Only seeds are resampled inside a budget: its sizes are the choice, and budgets are
        # weighed by the law's fit.
        weights_RxM = bootstrap.weights(runs.cell, len(set(runs.cell.tolist())), draws, rng)
        weights_RxM = np.concatenate([np.ones((1, len(runs))), weights_RxM])
        try:
            point, bpb_R, cells = (
                _best(runs, weights_RxM) if ratio is None else _at_ratio(runs, weights_RxM, ratio)
            )
        except ConfigError as error:
            refused.append(f"{brief(budget)} FLOPs: {error}")
            continue
        best_M |= np.isin(points.cell, cells)
        spread_R = bpb_R[1:] if bootstrap.free(weights_RxM) else ()
        bpb = bootstrap.estimate(bpb_R[0], spread_R)
        frontier_points.append((FrontierPoint(float(budget), *point, bpb), bpb_R))
    family = "/".join(points.families())
    if len(frontier_points) < len(FRONTIER.constants):
        raise ConfigError(
            f"{points.path}: family {family}: {len(frontier_points)} budgets give a point; "
            f"{FRONTIER} needs three" + (f" ({'; '.join(refused)})" if refused else "")
        )
    bpb_RxK = np.stack([bpb_R for _, bpb_R in frontier_points], 1)
    frontier = dataclasses.replace(
        points,
        values={
            "flops": np.array([point.flops for point, _ in frontier_points]),
            "bpb": bpb_RxK[0],
        },
        family=np.full(len(frontier_points), family),
        budget=np.array([point.budget for point, _ in frontier_points]),
        cell=np.arange(len(frontier_points)),
    )
    law = law_fit.fit(
        FRONTIER, frontier, draws=draws, seed=rng, hold_out=1, targets_RxM=bpb_RxK[1:]
    )
    if ratio is None:  # the seeds behind each point tell how much of what the law misses is noise
        best = points.where(best_M)
        residual_M = np.log(law.predict(flops=best["flops"]) / best["bpb"])
        lack = law_fit.lack_of_fit(
            residual_M, np.log(best["bpb"]), best.cell, len(FRONTIER.constants)
        )
        law = dataclasses.replace(law, lack_of_fit=lack)
    basis = "envelope" if ratio is None else f"ratio {ratio:g}"
    return FrontierFit(
        family, basis, tuple(point for point, _ in frontier_points), tuple(refused), law
    )


def _best(
    points: Points, weights_RxM: np.ndarray
) -> tuple[tuple[float, float | None], np.ndarray, np.ndarray]:
    """((flops, params), bpb_R, cells) of the run with the lowest mean over seeds; every replicate
    chooses anew.
    """
    cells = np.unique(points.cell)
    own_KxM = points.cell[None] == cells[:, None]
    mean_RxK = (weights_RxM * points["bpb"]) @ own_KxM.T / (weights_RxM @ own_KxM.T)
    best = int(mean_RxK[0].argmin())
    params = float(points["params"][own_KxM[best]].mean()) if "params" in points.values else None
    return (float(points["flops"][own_KxM[best]].mean()), params), mean_RxK.min(1), cells[[best]]


def _at_ratio(
    points: Points, weights_RxM: np.ndarray, ratio: float
) -> tuple[tuple[float, float | None], np.ndarray, np.ndarray]:
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


class Frontier(laws.FamilyLaw):
    """The frontier of each family. The result is {family: FrontierFit}."""

    name = "frontier"
    title = "frontier"
    says = "BPB = e + a/C^b on each budget's best size, or at --ratio of data to params"
    needs = ("flops", "bpb")
    options = {"ratio": "Frontier at this ratio of data to params."}

    def needed(self, options: laws.Options) -> tuple[str, ...]:
        """With a ratio the sizes, too."""
        return self.needs + (("params", "data") if options.get("ratio") else ())

    def fit_family(self, own: Points, options: laws.Options, seed: list[int]) -> FrontierFit:
        """FrontierFit of one family."""
        ratio = options.get("ratio")
        return fit_frontier(own, draws=options.draws, seed=seed, ratio=ratio)

    def show(self, result: Mapping[str, FrontierFit], view: laws.View) -> list[Table | str]:
        """Constants, the points they stand on, and the fit's quality, of each family."""
        shown: list[Table | str] = []
        for family, fit in result.items():
            values = fit.law.constants | {f"bpb at {number(p.flops)}": p.bpb for p in fit.points}
            name = f"{view.label(family)}, {fit.basis}: {fit.law.law}"
            shown += [tables.constants(name, values)]
            shown += [f"no point at {words}" for words in fit.refused]
            shown += tables.fit_lines(fit.law)
        return shown

    def figure(self, result: Mapping[str, FrontierFit], view: laws.View) -> Any:
        """See `draw`."""
        return draw(result, view)

    def sections(
        self, result: Mapping[str, FrontierFit], view: laws.View
    ) -> dict[str, laws.Section]:
        """Unfolded, also where no family has a law."""
        return {"scaling": section(result, view)}

    def fits(self, result: Mapping[str, FrontierFit]) -> list[tuple[str | None, LawFit]]:
        """One of each family."""
        return [(family, fit.law) for family, fit in result.items()]

    def summary(self, result: Mapping[str, FrontierFit]) -> dict[str, Any]:
        """{family: FrontierFit}, and the family of lowest BPB at its last budget."""
        return {"frontiers": result, "best": best_family(result)}


def best_family(fits: Mapping[str, FrontierFit]) -> str | None:
    """The family of lowest BPB at its last budget."""
    last = lambda family: fits[family].points[-1].bpb.value or 0.0
    return min(fits, key=last, default=None)


def section(
    fits: Mapping[str, FrontierFit],
    view: laws.View,
    marked: Sequence[bootstrap.Estimate] = (),
    saved: tuple[str, Mapping[str, str | Cell]] | None = None,
) -> laws.Section:
    """The page's figure and its table of best sizes. `marked`: FLOPs to mark in the figure;
    `saved`: (header, {family: cell}) of a last column.
    """
    budgets, rows = view.shown_budgets, []
    for family in view.looks:
        own = view.table.of(family)
        best = dict(best_sizes(own))
        row: list[str | Cell] = [view.label(family)]
        for budget in budgets:
            if budget not in best:
                row.append(number(None))
                continue
            runs = own.where(best[budget])
            params = count(runs["params"].mean()) if "params" in runs.values else ""
            row.append(Cell(f"{runs['bpb'].mean():.4f}", params))
        exponent = fits[family].law.constants["b"] if family in fits else None
        row.append(tables.cell(exponent, without="no interval"))
        rows.append((*row, *([saved[1].get(family, number(None))] if saved else [])))
    header = [f"best {view.measure} (parameters)", *(f"{number(b)} FLOPs" for b in budgets)]
    header += ["exponent b", *([saved[0]] if saved else [])]
    unsure = [family for family, fit in fits.items() if not len(fit.law.replicates_RxP)]
    rough = [family for family, fit in fits.items() if fit.law.lack_of_fit.freedom < 5]
    without_law = len(fits) < len(view.looks)
    dotted = (
        "; dotted where nothing is known of its error, or where there is no law"
        if unsure or without_law
        else ""
    )
    marks = (
        f"Marks: each family's best size at each budget; faint: all runs. Line: {view.measure} = "
        "e + a / C^b through the best sizes with its 90% band, dashed where it is "
        f"extrapolated{dotted}."
    )
    if view.scored is not None:
        marks += (
            " Hollow: the entropy model's scoring of the bytes that were read is added (its own "
            "training is not)."
        )
    brackets = (
        f"In brackets: 90% intervals of {view.options.draws} bootstrap draws over runs and seeds, "
        f"seed {view.options.seed}."
    )
    if saved:
        brackets += (
            f" Last column: the part of its FLOPs that it would save to the same {view.measure}, "
            "at the family's largest budget that both have measured."
        )
    if unsure:
        brackets += (
            f" No intervals for {view.names(unsure)}: as many budgets as constants and one seed, "
            "so the law passes through its points and says nothing of its own error. A fourth "
            "budget, or a second seed, would."
        )
    elif rough:
        brackets += (
            f" Fewer than five budgets more than constants ({view.names(rough)}): intervals are "
            "rough, rather too narrow."
        )
    title = f"{view.measure.capitalize()} against training FLOPs"
    content = (marks, Table("", tuple(header), tuple(rows)), brackets)
    alt = f"{title}, with each family's law"
    return laws.Section(title, content, draw(fits, view, marked), alt, folded=False)


def draw(
    fits: Mapping[str, FrontierFit], view: laws.View, marked: Sequence[bootstrap.Estimate] = ()
) -> Any:
    """BPB against training FLOPs: every run faint, best sizes at each budget, and the laws.

    A family without a law keeps its best sizes, joined by dots. `marked` FLOPs that have an
    interval are dotted lines. Hollow markers: with the entropy model's scoring.
    """
    from blt_jax.scaling import figures

    with figures.paper():
        figure, [[axis]] = figures.panels(figures.WIDTH, 3.8)
        hollow: dict[str, Any] = {}
        for family in view.table.families():
            own, look, fit = view.table.of(family), view.looks[family], fits.get(family)
            style: dict[str, Any] = {"marker": look.marker, "s": 9, "alpha": 0.25, "lw": 0}
            axis.scatter(own["flops"], own["bpb"], color=look.colour, **style)
            best = [own.where(mask_M) for _, mask_M in best_sizes(own)]
            if fit:
                flops_K = [point.flops for point in fit.points]
                bpb_K = [point.bpb for point in fit.points]
                flops_X = np.geomspace(min(flops_K), max(flops_K) * figures.FURTHER, 200)
                band = fit.law.band(flops=flops_X)
                figures.band(axis, flops_X, band, look, solid_to=max(flops_K))
            else:
                flops_K = [runs["flops"].mean() for runs in best]
                bpb_K = [bootstrap.estimate(runs["bpb"].mean()) for runs in best]
                axis.plot(flops_K, [bpb.value for bpb in bpb_K], ":", color=look.colour, lw=1.1)
            at_ratio = fit is not None and fit.basis != "envelope"
            label = f"{look.label} ({fit.basis})" if fit and at_ratio else look.label
            figures.measured(axis, flops_K, bpb_K, look, label)
            scored = view.scored.of(family) if view.scored is not None else own
            if (scored["flops"] > own["flops"]).any():
                flops_K = [scored["flops"][mask_M].mean() for _, mask_M in best_sizes(own)]
                hollow = {"mfc": "white", "mec": look.colour, "color": look.colour}
                hollow |= {"marker": look.marker, "ls": ""}
                axis.plot(flops_K, [runs["bpb"].mean() for runs in best], **hollow)
        if hollow:
            grey = {"mec": "#444444", "color": "#444444", "marker": "o"}
            label = "hollow: with the\nentropy model's scoring"
            axis.plot([], [], **(hollow | grey), label=label)
        for flops in marked:
            if flops.low is not None and flops.high is not None:
                axis.axvline(flops.value, color="#444444", ls=":", lw=1)
                axis.axvspan(flops.low, flops.high, color="#444444", alpha=0.08, lw=0)
        figures.log_axis(axis, "x", brief)
        figures.log_axis(axis, "y", brief)
        convention = f" ({view.convention})" if view.convention else ""
        axis.set(xlabel=f"training FLOPs{convention}", ylabel=view.measure)
        # matplotlib puts lines, the hollow one, before points with bars
        handles, _ = axis.get_legend_handles_labels()
        figures.outside(axis, handles=handles[1:] + handles[:1] if hollow else handles)
    return figure
