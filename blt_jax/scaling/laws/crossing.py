"""Where two families' frontiers cross, and the FLOPs that one saves at equal BPB."""

import dataclasses
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, laws, tables
from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.law_fit import LawFit
from blt_jax.scaling.laws import frontier
from blt_jax.scaling.laws.frontier import FrontierFit
from blt_jax.scaling.number_format import brief, interval, number, percent
from blt_jax.scaling.points import Points
from blt_jax.scaling.tables import Cell, Table

# a crossing is looked for this factor beyond the measured budgets, and called extrapolated there
REACH = 10.0
MARKED_PAIRS = 3  # in a figure; more would hide the laws


@dataclasses.dataclass(frozen=True)
class Saving:
    """At the BPB that `b` has with `budget` FLOPs, `a` spends a `factor` less (below 1: more)."""

    budget: float
    bpb: float
    factor: bootstrap.Estimate
    extrapolated: bool  # a's FLOPs lie outside its measured budgets


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Where the frontiers of families a and b meet. `budgets` may be empty; `words` say where."""

    a: str
    b: str
    budgets: tuple[bootstrap.Estimate, ...]
    share: float  # of the replicates that cross in the range looked at
    words: str
    savings: tuple[Saving, ...]
    # the smallest and largest budget that both have measured
    measured: tuple[float, float] | None = None


def crossing(a: FrontierFit, b: FrontierFit) -> Crossing:
    """Crossing of two FrontierFits, looked for within REACH of the budgets that both have
    measured.
    """
    # Of budgets, not of FLOPs: of two families that spend one budget, to a step each, both have
    # measured it.
    low = max(min(p.budget for p in fit.points) for fit in (a, b))
    high = min(max(p.budget for p in fit.points) for fit in (a, b))
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
    share = float(np.mean([len(crossings) > 0 for crossings in crossings_R])) if draws else 0.0
    budgets = [
        bootstrap.estimate(flops, [_nearest(known, flops, sign) for known in crossings_R])
        for flops, sign in at
    ]
    common = [p for p in b.points if low <= p.budget <= high]
    savings = tuple(_saving(a, b, p.flops, draws) for p in common)
    words = _words(a, b, at, gap_X, low, high)
    return Crossing(a.family, b.family, tuple(budgets), share, words, savings, (low, high))


def _crossings(x_X: np.ndarray, y_X: np.ndarray) -> list[tuple[float, float]]:
    """[(x, sign)] where y changes to that sign, by a straight line in log x."""
    i = np.flatnonzero(np.sign(y_X[:-1]) * np.sign(y_X[1:]) < 0)
    log_x = np.log(x_X)
    at = np.exp(log_x[i] + (log_x[i + 1] - log_x[i]) * y_X[i] / (y_X[i] - y_X[i + 1]))
    return list(zip(at.tolist(), np.sign(y_X[i + 1]).tolist(), strict=True))


def _nearest(crossings: list[tuple[float, float]], flops: float, sign: float) -> float:
    """The crossing of a replicate that changes to the same sign and is nearest; NaN without any."""
    same = [at for at, own in crossings if own == sign]
    return min(same, key=lambda at: abs(np.log(at / flops)), default=np.nan)


def _words(
    a: FrontierFit,
    b: FrontierFit,
    at: list[tuple[float, float]],
    gap_X: np.ndarray,
    low: float,
    high: float,
) -> str:
    if not at:
        better, other = (a, b) if gap_X.mean() > 0 else (b, a)
        return (
            f"no crossing within a factor {REACH:g} of the measured budgets: {better.family} is "
            f"below {other.family}"
        )
    places = []
    for budget, _ in at:
        where = (
            "within the measured budgets"
            if low <= budget <= high
            else "extrapolated, beyond the measured budgets"
        )
        places.append(f"at {brief(budget)} FLOPs, {where}")
    first, then = (b, a) if gap_X[0] < 0 else (a, b)
    return f"{first.family} is better at small budgets; they cross {'; '.join(places)}" + (
        f"; then {then.family} is better" if len(at) == 1 else ""
    )


def _saving(a: FrontierFit, b: FrontierFit, flops: float, draws: int) -> Saving:
    bpb = float(b.law.predict(flops=flops))
    needed = float(_flops_at(a.law, a.law.theta_P[None], np.array([bpb]))[0])
    bpb_R = b.law.predict_replicates(flops=flops)[:draws].ravel()
    needed_R = _flops_at(a.law, a.law.replicates_RxP[:draws], bpb_R)
    # a law as good as flat has any BPB for nothing: no factor either
    with np.errstate(divide="ignore"):
        factor = bootstrap.estimate(np.divide(flops, needed), flops / needed_R)
    measured = [p.flops for p in a.points]
    return Saving(float(flops), bpb, factor, not min(measured) <= needed <= max(measured))


def _flops_at(fit: LawFit, theta_RxP: np.ndarray, bpb_R: np.ndarray) -> np.ndarray:
    """FLOPs at which the frontier has reached a BPB; NaN where it never does."""
    constants = fit.law.uncentred(theta_RxP, fit.centre)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        log_R = np.log(constants["a"] / (bpb_R - constants["e"])) / constants["b"]
        return np.where((bpb_R > constants["e"]) & (constants["b"] > 0), np.exp(log_R), np.nan)


class CrossingLaw(laws.Law):
    """The frontiers of all families and the crossings of all pairs.

    The result is {family: FrontierFit} | {"a x b": Crossing}.
    """

    name = "crossing"
    title = "FLOPs saved at equal BPB"
    says = "where two families' frontiers meet, and the FLOPs saved at equal BPB"
    needs = ("flops", "bpb")
    options = frontier.Frontier.options
    builds_on = ("frontier",)
    nothing: Mapping[str, Any] = {}
    default_lead = "no frontier law for both, so no comparison at equal BPB (see below)."

    def needed(self, options: laws.Options) -> tuple[str, ...]:
        """As the frontiers."""
        return frontier.Frontier().needed(options)

    def fit(
        self, table: Points, options: laws.Options, known: Mapping[str, Any]
    ) -> dict[str, FrontierFit | Crossing]:
        """Raises ConfigError for one family."""
        fits: dict[str, FrontierFit] = known["frontier"]
        if len(fits) < 2:
            raise ConfigError(
                f"{table.path}: one family, {next(iter(fits))!r}; a crossing needs two in column "
                "family"
            )
        order = list(fits)
        if options.best_first:
            order.sort(key=lambda family: family != frontier.best_family(fits))
        pairs = combinations(order, 2)
        return fits | {f"{a} x {b}": crossing(fits[a], fits[b]) for a, b in pairs}

    def fit_what_can_be(
        self, table: Points, options: laws.Options, known: Mapping[str, Any]
    ) -> tuple[Any, list[laws.Refusal]]:
        """As `fit`; a Refusal where fewer than two families have a frontier."""
        if len(known["frontier"]) < 2:
            words = "it takes the frontier laws of two families"
            return self.nothing, [laws.Refusal(self.title, tuple(table.families()), words)]
        return self.fit(table, options, known), []

    def show(self, result: Mapping[str, Any], view: laws.View) -> list[Table | str]:
        """The frontiers; what each family saves, pair by pair, and where they cross."""
        shown = frontier.Frontier().show(_frontiers_of(result), view)
        for pair in _crossings_of(result):
            shown.append(f"{pair.a} x {pair.b}: {pair.words}")
        return [*shown, _savings(result, view), *_places(result, view)]

    def figure(self, result: Mapping[str, Any], view: laws.View) -> Any:
        """The frontiers, with lines where they cross."""
        marked = [at for pair in _crossings_of(result) for at in pair.budgets]
        return frontier.draw(_frontiers_of(result), view, marked)

    def sections(self, result: Mapping[str, Any], view: laws.View) -> dict[str, laws.Section]:
        """The frontiers' section with one column more; folded, all pairs."""
        pairs = _crossings_of(result)
        if not pairs:
            return {}
        fits, best = _frontiers_of(result), pairs[0].a
        few = pairs if len(pairs) <= MARKED_PAIRS else []
        marked = [at for pair in few for at in pair.budgets]
        cells = {
            pair.b: saved(pair.savings[-1].factor)
            for pair in pairs
            if pair.a == best and pair.savings
        }
        column = f"{view.label(best)} saves", cells
        title = f"FLOPs at equal {view.measure}, all pairs and budgets"
        content: tuple[Table | str, ...] = (_savings(result, view), *_places(result, view))
        return {
            "scaling": frontier.section(fits, view, marked, column),
            self.name: laws.Section(title, content),
        }

    def lead(self, result: Mapping[str, Any], pair: tuple[str, str], view: laws.View) -> str:
        """What is saved at the largest budget that both have measured, and where they cross."""
        known = [each for each in _crossings_of(result) if {each.a, each.b} == set(pair)]
        if not known:
            return ""
        (own,), words = known, []
        a, b = view.label(own.a), view.label(own.b)
        if own.savings:
            last = own.savings[-1]
            there = f"the {view.measure} that {b} has at {number(last.budget)} FLOPs"
            if last.factor.value is None:
                words.append(f"{a}'s law never reaches {there}.")
            else:
                unsure = last.factor.low is None or last.factor.holds(1)
                part = saved(last.factor)
                note = part.note if last.factor.low is None else f"90%: {part.note}"
                unsure = last.factor.low is None or last.factor.holds(1)
                words.append(
                    f"To {there}, {a} saves {part.text} ({note}) of them"
                    f"{', its law extrapolated' if last.extrapolated else ''}"
                    f"{' – no saving is claimed' if unsure else ''}."
                )
        for at in own.budgets:
            if at.low is not None and at.value is not None and own.measured is not None:
                inside = own.measured[0] <= at.value <= own.measured[1]
                beyond = "" if inside else ", beyond the measured budgets"
                words.append(
                    f"Their laws cross at {number(at.value)} FLOPs (90%: {interval(at)}){beyond}."
                )
        return " ".join(words)

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """[Crossing]; the frontiers are in report.json by themselves."""
        return {"crossings": _crossings_of(result)}


def _crossings_of(result: Mapping[str, Any]) -> list[Crossing]:
    return [each for each in result.values() if isinstance(each, Crossing)]


def _frontiers_of(result: Mapping[str, Any]) -> dict[str, FrontierFit]:
    return {name: each for name, each in result.items() if isinstance(each, FrontierFit)}


def _savings(result: Mapping[str, Any], view: laws.View) -> Table:
    """A row for each pair and budget that both have measured."""
    rows: list[tuple[str | Cell, ...]] = []
    for pair in _crossings_of(result):
        name = f"{view.label(pair.a)} against {view.label(pair.b)}"
        for saving in pair.savings:
            row = (name, number(saving.budget), f"{saving.bpb:.4f}", tables.cell(saving.factor))
            word = "extrapolated" if saving.extrapolated else ""
            rows.append((*row, saved(saving.factor), word))
        if not pair.savings:
            rows.append((name, "", "", "", "", pair.words))
    header = ("pair", "FLOPs of the second", view.measure, "times those of the first")
    return Table("", (*header, "the first saves", ""), tuple(rows))


def _places(result: Mapping[str, Any], view: laws.View) -> list[str]:
    """A sentence for each pair on where it crosses."""
    lines = []
    for pair in _crossings_of(result):
        where = f"no crossing within a factor of {REACH:g} of the measured budgets"
        if pair.budgets:
            places = (f"{number(at.value)} FLOPs ({interval(at)})" for at in pair.budgets)
            where = (
                f"cross at {', '.join(places)}; {percent(pair.share)} of the draws cross in the "
                "range looked at"
            )
        lines.append(f"{view.label(pair.a)} and {view.label(pair.b)}: {where}.")
    return lines


def saved(factor: Estimate) -> Cell:
    """The part of the FLOPs that a factor (see `Saving`) saves; negative: it costs."""
    if factor.value is None:
        return Cell("never gets there")

    def part(value: float | None) -> str:
        return number(None) if value is None else percent(1 - 1 / value)

    return Cell(
        part(factor.value), interval(factor, part) if factor.low is not None else "no interval"
    )
