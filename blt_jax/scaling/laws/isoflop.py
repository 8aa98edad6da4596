"""The best size at each budget, and how it grows (Chinchilla, arXiv 2203.15556, approach 2).

At each budget a robust parabola in log size; its minimum counts where it lies inside the sizes that
were trained. Then N_opt = N0 C^a and D_opt = D0 C^b through the minima. Parabolas lean towards the
middle of an uneven grid: centre the grid on the minimum, within a factor of about four on either
side, before trusting the exponents.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, laws, parabola, tables
from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.law_fit import HeldOut, held_out
from blt_jax.scaling.number_format import brief, count, number
from blt_jax.scaling.points import Points
from blt_jax.scaling.power_law import PowerLaw, power_law, robust_linear
from blt_jax.scaling.tables import Cell, Table

PANELS = 4  # of families beside each other


@dataclasses.dataclass(frozen=True)
class BudgetOptimum:
    """What the parabola at one budget says, with 90% intervals; None and a word where it says
    nothing: the minimum lies outside the sizes, or the sizes are too few.
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


def fit_isoflop(points: Points, *, draws: int, seed: Any) -> IsoflopFit:
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
        design_Mx3 = parabola.design(x_M - x_M.mean())
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
    minima, size_RxK = [], np.full((draws + 1, len(own)), np.nan)
    data_RxK = size_RxK.copy()
    for k, (budget, own_M) in enumerate(own.items()):
        if budget not in usable:
            params = data = loss = bootstrap.estimate(None)
            word = "too few sizes for a minimum"
        else:
            *values, word = _optimum(points.where(own_M), y_RxM[:, own_M])
            size_RxK[:, k], data_RxK[:, k], _ = values
            params, data, loss = (bootstrap.estimate(v_R[0], v_R[1 : spread + 1]) for v_R in values)
        minima.append(BudgetOptimum(budget, sizes[budget], params, data, loss, word))
    if np.isfinite(size_RxK[0]).sum() < 2:
        return IsoflopFit(tuple(minima), None, None, None)
    at = {"flops": np.array(list(own))}
    params_law, data_law = (
        power_law(name, at, values_RxK[0], values_RxK[1 : spread + 1], rng)
        for name, values_RxK in (("params", size_RxK), ("data", data_RxK))
    )
    return IsoflopFit(tuple(minima), params_law, data_law, _held_out(at["flops"], size_RxK[0], rng))


def _held_out(budget_K: np.ndarray, size_K: np.ndarray, rng: np.random.Generator) -> HeldOut | None:
    inside = np.flatnonzero(np.isfinite(size_K))
    if len(inside) < 3:
        return None
    rest, last = inside[:-1], inside[-1:]
    below = power_law(
        "params", {"flops": budget_K[rest]}, size_K[rest], np.empty((0, len(rest))), rng
    )
    return held_out(below.predict(budget_K[last]), size_K[last], budget_K[last[0]])


def _optimum(points: Points, y_RxM: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """(params_R, data_R, loss_R, word of the first) at one budget; NaN where refused."""
    x_M = np.log(points["params"])
    middle = x_M.mean()
    x_R, loss_R, words = parabola.vertex(
        x_M, robust_linear(parabola.design(x_M - middle), y_RxM), middle
    )
    order = np.argsort(x_M, kind="stable")
    data_R = np.interp(x_R, x_M[order], np.log(points["data"])[order])
    return np.exp(x_R), np.exp(data_R), loss_R, str(words[0])


class Isoflop(laws.FamilyLaw):
    """Minima and power laws of each family. The result is {family: IsoflopFit}."""

    name = "isoflop"
    title = "isoFLOP"
    says = "the best size at each budget, N_opt ~ C^a, D_opt ~ C^b"
    needs = ("params", "data", "loss")

    def fit_family(self, own: Points, options: laws.Options, seed: list[int]) -> IsoflopFit:
        """IsoflopFit of one family."""
        return fit_isoflop(own, draws=options.draws, seed=seed)

    def show(self, result: Mapping[str, IsoflopFit], view: laws.View) -> list[Table | str]:
        """Minima and power laws of each family."""
        shown: list[Table | str] = []
        for family, fit in result.items():
            rows = tuple(
                (number(best.budget), str(best.sizes), tables.cell(best.params))
                + (number(best.data.value), number(best.loss.value), best.word)
                for best in fit.minima
            )
            title = f"{view.label(family)}: the best size by budget"
            header = ("FLOPs", "sizes", "N_opt (90% interval)", "D_opt", "loss", "")
            shown.append(Table(title, header, rows))
            if fit.params is None:
                shown.append("fewer than two minima inside the grid: no law")
                continue
            title = (
                f"N_opt = N0 C^a, D_opt = D0 C^a through {fit.params.points} minima, rms of log "
                f"N_opt {fit.params.rms:.2g}"
            )
            values = {f"{law[0]}: {name}": value for law, name, value in _constants(fit)}
            shown.append(tables.constants(title, values))
            shown.append(tables.held_out_line(fit.held_out, "N_opt"))
        return shown

    def figure(self, result: Mapping[str, IsoflopFit], view: laws.View) -> Any:
        """Best size and data against budget, with their power laws."""
        from blt_jax.scaling import figures

        with figures.paper():
            figure, [axes] = figures.panels(figures.WIDTH, 3.2, 1, 2)
            for family, fit in result.items():
                inside = [best for best in fit.minima if best.params.value is not None]
                if not inside:
                    continue
                flops_K, look = [best.budget for best in inside], view.looks[family]
                flops_X = np.geomspace(min(flops_K), max(flops_K) * figures.FURTHER, 100)
                for axis, estimates, law in (
                    (axes[0], [best.params for best in inside], fit.params),
                    (axes[1], [best.data for best in inside], fit.data),
                ):
                    figures.measured(axis, flops_K, estimates, look, look.label)
                    if law:
                        figures.band(axis, flops_X, law.band(flops_X), look, max(flops_K))
            figures.flops_panels(figure, axes, ("best parameters", "data at the best size"))
        return figure

    def sections(
        self, result: Mapping[str, IsoflopFit], view: laws.View
    ) -> dict[str, laws.Section]:
        """Parabolas and their minima, wherever the table has sizes; folded: the power laws."""
        if "params" not in view.table.values:
            return {}
        title = f"{view.measure.capitalize()} against size, at each budget"
        note = (
            "Robust parabola in log size through the sizes of a budget; a star marks a minimum "
            "inside the grid, with its interval. With three sizes and one seed a parabola passes "
            "through its points and says nothing of its own error."
        )
        content: tuple[Table | str, ...] = (note,)
        if result:
            content = (note, _by_budget(result, view))
        parts = {
            self.name: laws.Section(
                title, content, draw_parabolas(result, view), "isoFLOP parabolas", folded=False
            )
        }
        if any(best.params.value for fit in result.values() for best in fit.minima):
            title = "Best size and data against budget"
            lines = ["Minima of the parabolas and the power laws through them."]
            lines += [
                f"{view.label(family)}: {tables.held_out_line(fit.held_out, 'N_opt')}."
                for family, fit in result.items()
                if fit.held_out
            ]
            figure = self.figure(result, view)
            parts["best_sizes"] = laws.Section(title, tuple(lines), figure, title)
        return parts

    def constants(
        self, result: Mapping[str, IsoflopFit]
    ) -> list[tuple[str, str | None, str, Estimate]]:
        """Those of the power laws."""
        return [
            (law, family, name, value)
            for family, fit in result.items()
            for law, name, value in _constants(fit)
        ]

    def summary(self, result: Mapping[str, IsoflopFit]) -> dict[str, Any]:
        """{family: IsoflopFit}."""
        return {"isoflops": result}


def _constants(fit: IsoflopFit) -> list[tuple[str, str, Estimate]]:
    """(law, constant, value) of both power laws."""
    rows = []
    for law, letter in ((fit.params, "N"), (fit.data, "D")):
        if law:
            text = f"{letter}_opt = {letter}0 C^a"
            rows += [(text, f"{letter}0", law.constant), (text, "a", law.exponents["flops"])]
    return rows


def _by_budget(result: Mapping[str, IsoflopFit], view: laws.View) -> Table:
    """Best sizes, a row per family and a column per budget."""
    rows = []
    for family, fit in result.items():
        minima = {best.budget: best for best in fit.minima}
        row: list[str | Cell] = [view.label(family)]
        for budget in view.shown_budgets:
            best = minima.get(budget)
            if best is None:
                row.append(number(None))
            elif best.params.value is None:
                row.append(Cell("", best.word))
            else:
                row.append(tables.cell(best.params, count))
        for law in (fit.params, fit.data):
            exponent = law and tables.cell(law.exponents["flops"], without="no interval")
            row.append(exponent or Cell("", "fewer than two minima"))
        rows.append(tuple(row))
    budgets = (f"{number(budget)} FLOPs" for budget in view.shown_budgets)
    return Table("", ("best size", *budgets, "N_opt ~ C^", "D_opt ~ C^"), tuple(rows))


def draw_parabolas(fits: Mapping[str, IsoflopFit], view: laws.View) -> Any:
    """BPB against size at each budget, a panel per family; a star is a minimum inside the grid,
    with its interval.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import NullLocator

    from blt_jax.scaling import figures

    families, budgets = view.table.families(), np.unique(view.table.budget)
    columns = min(len(families), PANELS)
    rows = -(-len(families) // columns)
    norm = LogNorm(budgets[0] / 1.6, budgets[-1] * 1.6)  # not up to the palest ends of the scale
    with figures.paper():
        size = max(figures.WIDTH, 2.2 * columns), 0.5 + 2.6 * rows
        figure, axes = figures.panels(*size, rows, columns, sharey=True)
        for axis in axes.flat[len(families) :]:
            axis.remove()
        for axis, family in zip(axes.flat, families, strict=False):
            own, fit, look = view.table.of(family), fits.get(family), view.looks[family]
            inside = {best.budget: best for best in fit.minima if best.params.value} if fit else {}
            for budget in np.unique(own.budget):
                at = own.where(own.budget == budget)
                colour = colormaps["viridis"](norm(budget))
                axis.plot(at["params"], at["bpb"], look.marker, color=colour, ms=4)
                curve = parabola.minimum(at["params"], at["bpb"]).coefficients
                if curve:
                    size_X = np.geomspace(at["params"].min(), at["params"].max(), 60)
                    axis.plot(size_X, np.polyval(curve, np.log(size_X)), color=colour, lw=1)
                if budget in inside:
                    best = inside[budget]
                    style: dict[str, Any] = {"mec": "black", "mew": 0.7, "ecolor": "black"}
                    style |= {"elinewidth": 0.9, "fmt": "*", "ms": 10, "color": colour}
                    bars = figures.error_bars([best.params])
                    axis.errorbar([best.params.value], [best.loss.value], xerr=bars, **style)
            figures.log_axis(axis, "x", count)
            figures.log_axis(axis, "y", brief)
            axis.set(title=look.label, xlabel="parameters")
        for axis in axes[:, 0]:
            axis.set_ylabel(view.measure)
        scale = figure.colorbar(
            ScalarMappable(norm, "viridis"), ax=axes, label="training FLOPs", aspect=30, pad=0.02
        )
        scale.set_ticks(view.shown_budgets, labels=[brief(at) for at in view.shown_budgets])
        scale.ax.yaxis.set_minor_locator(NullLocator())
    return figure
