"""What a report warns of before its reader compares anything.

Each kind of caution is one function of what the study has measured; `KINDS` lists them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blt_jax.study.results import Point


@dataclasses.dataclass(frozen=True)
class Caution:
    """A warning in the lead. `families`: those of which no comparison is claimed for it."""

    words: str
    families: tuple[str, ...] = ()


# (plan.json, finished runs, {family: header of its training rows}, {family: label}) -> cautions
Kind = Callable[
    [Mapping[str, Any], Sequence[Point], Mapping[str, Any], Mapping[str, str]], list[Caution]
]
KINDS: tuple[Kind, ...] = ()


def cautions(
    plan: Mapping[str, Any],
    points: Sequence[Point],
    headers: Mapping[str, Any],
    labels: Mapping[str, str],
) -> list[Caution]:
    """All cautions of a study, in the order of KINDS."""
    return [caution for kind in KINDS for caution in kind(plan, points, headers, labels)]


def barred(all_cautions: Sequence[Caution]) -> dict[str, str]:
    """{family: why} of families with which no comparison is claimed."""
    return {
        family: caution.words for caution in reversed(all_cautions) for family in caution.families
    }
