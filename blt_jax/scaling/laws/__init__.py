"""The port of a scaling law, and the register of laws.

A law is fitted to a table of runs (`points.Points`). It says what it needs, fits, and shows its
result: as tables and sentences, which a terminal and a page draw alike, and as a figure. No other
file needs to know which laws there are.

To add a law: one file with a class that inherits `Law`, or `FamilyLaw` where every family has a fit
of its own, and its line in `LAWS`. `fit` (or `fit_family`), `show` and `figure` are enough; the
report then has a section with both.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, points
from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.law_fit import LawFit
from blt_jax.scaling.looks import Look, looks_of
from blt_jax.scaling.points import Points
from blt_jax.scaling.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# name: where its class is; a report shows them in this order
LAWS = {
    "frontier": "blt_jax.scaling.laws.frontier:Frontier",
    "crossing": "blt_jax.scaling.laws.crossing:CrossingLaw",
    "isoflop": "blt_jax.scaling.laws.isoflop:Isoflop",
    "chinchilla": "blt_jax.scaling.laws.chinchilla:Chinchilla",
    "patch": "blt_jax.scaling.laws.patch:PatchLaws",
}
SHOWN_BUDGETS = 6  # of a table's columns


@dataclasses.dataclass(frozen=True)
class Options:
    """Of a fit: the bootstrap, and what the laws declare in `Law.options`."""

    draws: int = 1000
    seed: int = 0
    best_first: bool = False  # pairs of families begin with the one of lowest BPB, else by table
    values: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

    def get(self, name: str) -> float | None:
        """A law's option; None where it is not given."""
        return self.values.get(name)

    @property
    def bootstrap(self) -> dict[str, Any]:
        """For JSON: what intervals stand on."""
        drawn = {"draws": self.draws, "seed": self.seed}
        return drawn | {"level": bootstrap.LEVEL, "over": "runs and seeds"}


@dataclasses.dataclass(frozen=True)
class View:
    """What a result is shown with. `scored`: the table with the FLOPs of scoring the bytes by the
    entropy model added, where that adds some.
    """

    table: Points
    looks: Mapping[str, Look]
    options: Options
    measure: str = "bits per byte"
    convention: str = ""
    scored: Points | None = None

    @classmethod
    def of(cls, table: Points, options: Options) -> "View":
        """A View with the table's own names of families."""
        return cls(table, looks_of(table.families()), options)

    def label(self, family: str) -> str:
        """How a family is called."""
        return self.looks[family].label if family in self.looks else family

    def names(self, families: Any) -> str:
        """Labels with commas between."""
        return ", ".join(map(self.label, families))

    @property
    def shown_budgets(self) -> list[float]:
        """Of the table's budgets as many as a table has room for, in FLOPs."""
        budgets = np.unique(self.table.budget)
        picked = np.unique(np.linspace(0, len(budgets) - 1, SHOWN_BUDGETS).round().astype(int))
        return budgets[picked].tolist()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report's page: a figure, then tables and sentences. Those that are not `folded`
    come first.
    """

    title: str
    content: tuple[Table | str, ...] = ()
    figure: "Figure | None" = None
    alt: str = ""  # what the figure shows, for those who do not see it
    folded: bool = True


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why `law` was not fitted to `families`, in a sentence."""

    law: str
    families: tuple[str, ...]
    words: str


class Law:
    """A scaling law. Subclasses have no state: a result is all that a fit leaves.

    Results are dataclasses and dicts of them, such that `law_fit.as_json` makes JSON of them. In a
    report, methods that take a result get `nothing` where the law was refused.
    """

    name: str
    says: str  # in one line, for --help
    title: str  # in a sentence: "the TITLE law"
    needs: tuple[str, ...]  # fields of the table (`points.FIELDS`)
    options: Mapping[str, str] = {}  # {name: help} of positive numbers, flags of launch.fit
    builds_on: tuple[str, ...] = ()  # laws whose results `fit` gets
    in_report: bool = True  # wherever the table has the fields; False: only if asked by name
    nothing: Any = None  # the result where nothing could be fitted
    default_lead: str = ""  # of two families, in the page's first lines where no law says a word

    def needed(self, options: Options) -> tuple[str, ...]:
        """Fields that a fit with these options needs."""
        return self.needs

    def fit(self, table: Points, options: Options, known: Mapping[str, Any]) -> Any:
        """The result. `known`: those of the laws that it builds on. Raises ConfigError."""
        raise NotImplementedError

    def fit_what_can_be(
        self, table: Points, options: Options, known: Mapping[str, Any]
    ) -> tuple[Any, list[Refusal]]:
        """(result, why some or all of it is missing), for a report; raises nothing for a table that
        the law does not suit.
        """
        refusals: list[Refusal] = []
        families = tuple(table.families())
        fit = self._attempt(table, families, lambda: self.fit(table, options, known), refusals)
        return self.nothing if fit is None else fit, refusals

    def _attempt(
        self,
        table: Points,
        families: tuple[str, ...],
        fit: Callable[[], Any],
        refusals: list[Refusal],
    ) -> Any:
        """What `fit` returns; None, and a Refusal more, where it or the table's columns refuse."""
        lacking = [field for field in self.needs if field not in table.values]
        if not lacking:
            try:
                return fit()
            except ConfigError as error:
                words = str(error)
            # without file and family, which stand beside it
            for head in (table.path, *(f"family {family}" for family in families)):
                words = words.removeprefix(head).lstrip(":, ")
        else:
            names = " and ".join(f"{field} ({points.FIELDS[field]})" for field in lacking)
            words = f"the table has no {names}"
        refusals.append(Refusal(self.title, families, words))
        return None

    # ------------------------------------------------------------ showing a result

    def show(self, result: Any, view: View) -> list[Table | str]:
        """Tables and sentences, as launch.fit prints them."""
        raise NotImplementedError

    def figure(self, result: Any, view: View) -> "Figure":
        """What launch.fit --plot draws. Import matplotlib in here: it takes long."""
        raise NotImplementedError

    def sections(self, result: Any, view: View) -> dict[str, Section]:
        """{name of its pictures' files: Section} of the page. One with the name of an earlier law's
        takes its place.
        """
        if not result:
            return {}
        shown = tuple(self.show(result, view))
        return {self.name: Section(self.says, shown, self.figure(result, view), self.says)}

    def lead(self, result: Any, pair: tuple[str, str], view: View) -> str:
        """What the page's first lines say of two families, the lower BPB first; or nothing."""
        return ""

    def fits(self, result: Any) -> list[tuple[str | None, LawFit]]:
        """(family, or None: all; LawFit), of which the page shows constants and lack of fit."""
        return []

    def constants(self, result: Any) -> list[tuple[str, str | None, str, Estimate]]:
        """(law, family or None, constant, Estimate), for the page's table of all constants."""
        return [
            (str(fit.law), family, name, value)
            for family, fit in self.fits(result)
            for name, value in fit.constants.items()
        ]

    def summary(self, result: Any) -> dict[str, Any]:
        """Its entries in report.json."""
        return {self.name: result}


class FamilyLaw(Law):
    """A law that is fitted to each family by itself, with bootstrap draws of its own. The result is
    {family: fit}.
    """

    nothing: Mapping[str, Any] = {}

    def fit_family(self, own: Points, options: Options, seed: list[int]) -> Any:
        """The fit of one family's points. Raises ConfigError."""
        raise NotImplementedError

    def fit(self, table: Points, options: Options, known: Mapping[str, Any]) -> dict[str, Any]:
        """{family: fit}."""
        return {
            family: self.fit_family(table.of(family), options, [options.seed, i])
            for i, family in enumerate(table.families())
        }

    def fit_what_can_be(
        self, table: Points, options: Options, known: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Refusal]]:
        """({family: fit}, why some families have none)."""
        fits: dict[str, Any] = {}
        refusals: list[Refusal] = []
        for i, family in enumerate(table.families()):
            own, seed = table.of(family), [options.seed, i]
            attempt = lambda own=own, seed=seed: self.fit_family(own, options, seed)
            fits[family] = self._attempt(table, (family,), attempt, refusals)
        return {family: fit for family, fit in fits.items() if fit is not None}, refusals


# ---------------------------------------------------------------- the register


@functools.cache
def law(name: str) -> Law:
    """The law of a name in LAWS."""
    module, _, kind = LAWS[name].partition(":")
    return getattr(importlib.import_module(module), kind)()


def overview() -> str:
    """A line per law, for --help: name, columns, what it says."""
    rows = [("law", "columns", "says")]
    rows += [(name, ", ".join(law(name).needs), law(name).says) for name in LAWS]
    widths = [max(len(row[i]) for row in rows) + 2 for i in (0, 1)]
    return "\n".join(f"    {a:{widths[0]}}{b:{widths[1]}}{says}".rstrip() for a, b, says in rows)


def options() -> dict[str, str]:
    """{name: help} of all laws' options."""
    return {option: text for name in LAWS for option, text in law(name).options.items()}


def fit(name: str, table: Points, options: Options) -> Any:
    """The result of one law. Raises ConfigError."""
    own = law(name)
    return own.fit(table, options, {each: fit(each, table, options) for each in own.builds_on})


def fields_of_report() -> set[str]:
    """Fields that some law of a report needs."""
    return {field for name in LAWS if law(name).in_report for field in law(name).needs}


def fit_report(table: Points, options: Options) -> tuple[dict[str, Any], tuple[Refusal, ...]]:
    """({law: result} of all laws that join a report, what was not fitted and why).

    Refusals of one law with the same words are one.
    """
    results: dict[str, Any] = {}
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in (name for name in LAWS if law(name).in_report):
        results[name], refusals = law(name).fit_what_can_be(table, options, results)
        for refusal in refusals:
            grouped.setdefault((refusal.law, refusal.words), []).extend(refusal.families)
    return results, tuple(Refusal(law, tuple(of), words) for (law, words), of in grouped.items())
