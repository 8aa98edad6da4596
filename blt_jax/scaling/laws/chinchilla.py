"""L = E + A / N^alpha + B / D^beta (Chinchilla, arXiv 2203.15556, approach 3), and the split of a
budget C = 6 N D that follows from it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from blt_jax.scaling import bootstrap, law_fit, laws, tables
from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.law_fit import LawFit
from blt_jax.scaling.number_format import number
from blt_jax.scaling.points import Points
from blt_jax.scaling.power_sums import Law, Power, Term
from blt_jax.scaling.tables import Table

CHINCHILLA = Law(
    "chinchilla",
    "loss",
    (Term("E"), Term("A", (Power("params", "alpha"),)), Term("B", (Power("data", "beta"),))),
)
SHOWN_BUDGETS = (1e18, 1e20, 1e22, 1e24)  # FLOPs that the terminal splits

Band = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Allocation:
    """The compute-optimal split of a budget C = 6 N D by a fitted CHINCHILLA law: N_opt ~ C^a,
    D_opt ~ C^(1 - a).
    """

    a: bootstrap.Estimate
    budget: np.ndarray
    params: Band  # (low, value, high), each over the budgets; low and high None without intervals
    data: Band
    loss: Band
    data_per_param: Band


def allocation(fit: LawFit, budgets: Sequence[float] | np.ndarray) -> Allocation:
    """Allocation of FLOPs budgets by a LawFit of CHINCHILLA: where the law's slopes in N and in D
    are equal.
    """
    budget_X = np.asarray(budgets, float)
    at_optimum, spread = (
        fit.law.uncentred(theta, fit.centre) for theta in (fit.theta_P, fit.replicates_RxP)
    )

    def split(constants: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        alpha, beta = constants["alpha"][:, None], constants["beta"][:, None]
        ratio = alpha * constants["A"][:, None] / (beta * constants["B"][:, None])
        params = ratio ** (1 / (alpha + beta)) * (budget_X / 6) ** (beta / (alpha + beta))
        data = budget_X / (6 * params)
        loss = (
            constants["E"][:, None]
            + constants["A"][:, None] / params**alpha
            + constants["B"][:, None] / data**beta
        )
        return params, data, loss, data / params

    # a replicate that is no law (a term has faded, or grows) has no split either
    with np.errstate(all="ignore"):
        splits = list(zip(split(at_optimum), split(spread), strict=True))
        exponents = [each["beta"] / (each["alpha"] + each["beta"]) for each in (at_optimum, spread)]
    bands = []
    for values, replicates in splits:
        low, high = bootstrap.interval(replicates) if len(replicates) else (None, None)
        bands.append((low, values[0], high))
    return Allocation(bootstrap.estimate(exponents[0][0], exponents[1]), budget_X, *bands)


class Chinchilla(laws.FamilyLaw):
    """CHINCHILLA of each family. The result is {family: LawFit}."""

    name = "chinchilla"
    title = "Chinchilla"
    says = "L = E + A/N^alpha + B/D^beta and its compute-optimal split (C = 6 N D)"
    needs = ("params", "data", "loss")

    def fit_family(self, own: Points, options: laws.Options, seed: list[int]) -> LawFit:
        """LawFit of one family."""
        return law_fit.fit(CHINCHILLA, own, draws=options.draws, seed=seed)

    def show(self, result: dict[str, LawFit], view: laws.View) -> list[Table | str]:
        """Constants, the split of some budgets, and the fit's quality, of each family."""
        shown: list[Table | str] = []
        for family, fit in result.items():
            split = allocation(fit, SHOWN_BUDGETS)
            name = f"{view.label(family)}: {fit.law}"
            table = tables.constants(name, fit.constants | {"N_opt ~ C^": split.a})
            rows = list(table.rows)
            for i, budget in enumerate(SHOWN_BUDGETS):
                for what, (low, value, high) in (
                    ("N_opt", split.params),
                    ("D/N", split.data_per_param),
                ):
                    band = "no interval"
                    if low is not None and high is not None:
                        band = f"{number(low[i])} to {number(high[i])}"
                    rows.append((f"{what} at {number(budget)}", number(value[i]), band))
            shown += [dataclasses.replace(table, rows=tuple(rows)), *tables.fit_lines(fit)]
        return shown

    def figure(self, result: dict[str, LawFit], view: laws.View) -> Any:
        """What the law leaves of each run, and the compute-optimal split that follows."""
        from blt_jax.scaling import figures

        with figures.paper():
            figure, [axes] = figures.panels(figures.WIDTH, 3.2, 1, 2)
            for family, fit in result.items():
                own, look = view.table.of(family), view.looks[family]
                predicted_M = fit.predict(params=own["params"], data=own["data"])
                style: dict[str, Any] = {"marker": look.marker, "s": 12, "alpha": 0.6, "lw": 0}
                residual_M = 100 * (own["loss"] / predicted_M - 1)
                axes[0].scatter(
                    own["flops"], residual_M, color=look.colour, label=look.label, **style
                )
                largest = own["flops"].max()
                flops_X = np.geomspace(own["flops"].min(), largest * figures.FURTHER, 100)
                split = allocation(fit, flops_X)
                figures.band(axes[1], flops_X, split.params, look, largest)
                axes[1].plot(flops_X[::33], split.params[1][::33], look.marker, color=look.colour)
            axes[0].axhline(0, color="#444444", lw=0.8)
            names = ("loss over the law, %", "compute-optimal parameters")
            figures.flops_panels(figure, axes, names, logs=(False, True))
        return figure

    def sections(self, result: dict[str, LawFit], view: laws.View) -> dict[str, laws.Section]:
        """Folded: the figure."""
        if not result:
            return {}
        note = (
            "L = E + A / N^alpha + B / D^beta, Huber loss of log residuals (delta 1e-3). Right: "
            "the split of a budget C = 6 N D that follows. Constants and errors: see above."
        )
        alt = "Residuals of the Chinchilla law, and the optimal split of a budget"
        title = "Chinchilla's law of size and data"
        return {self.name: laws.Section(title, (note,), self.figure(result, view), alt)}

    def fits(self, result: dict[str, LawFit]) -> list[tuple[str | None, LawFit]]:
        """One of each family."""
        return list(result.items())

    def constants(self, result: dict[str, LawFit]) -> list[tuple[str, str | None, str, Estimate]]:
        """Those of the law, and the exponent of the best size."""
        rows: list[tuple[str, str | None, str, Estimate]] = []
        for family, fit in result.items():
            known = fit.constants | {"a of N_opt ~ C^a": allocation(fit, [1.0]).a}
            rows += [(str(fit.law), family, name, value) for name, value in known.items()]
        return rows

    def summary(self, result: dict[str, LawFit]) -> dict[str, Any]:
        """{family: LawFit}."""
        return {"chinchillas": result}
