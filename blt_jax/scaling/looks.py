"""Colour, marker and name of each family, the same in every picture of a report."""

import dataclasses
from collections.abc import Iterable, Mapping

# Okabe-Ito: told apart by colour-blind readers. Eight markers beside seven colours: no two of 56
# families look alike, and few families do so in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")


@dataclasses.dataclass(frozen=True)
class Look:
    """How a family appears in every picture."""

    label: str
    colour: str
    marker: str


def looks(labels: Mapping[str, str]) -> dict[str, Look]:
    """{family: Look} of {family: label}."""
    return {
        family: Look(label, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, (family, label) in enumerate(labels.items())
    }


def looks_of(families: Iterable[str]) -> dict[str, Look]:
    """Looks for a table's own names; a table without families has one, called all."""
    return looks({family: "runs" if family == "all" else family for family in families})
