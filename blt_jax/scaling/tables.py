"""Tables as plain data: what a terminal and a page draw alike.

A cell is text, or a `Cell` whose note (mostly a 90% interval) stands in brackets behind it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.law_fit import HeldOut, LawFit
from blt_jax.scaling.number_format import interval, number


@dataclasses.dataclass(frozen=True)
class Cell:
    text: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclasses.dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]


def cell(
    estimate: Estimate | None, form: Callable[[float | None], str] = number, without: str = ""
) -> Cell:
    """An Estimate with its interval; `without` is the note where there is none."""
    if estimate is None or estimate.value is None:
        return Cell(form(None))
    return Cell(form(estimate.value), without if estimate.low is None else interval(estimate, form))


def constants(title: str, estimates: Mapping[str, Estimate]) -> Table:
    """A row per constant: name, value, interval."""
    rows = ((name, number(e.value), interval(e)) for name, e in estimates.items())
    return Table(title, ("", "value", "90% interval"), tuple(rows))


def fit_lines(fit: LawFit) -> list[str]:
    """How well a law holds where it was fitted, and one budget further."""
    lack = fit.lack_of_fit
    lines = [
        f"{lack.rows} rows, {lack.runs} runs, {lack.constants} constants; Huber sum "
        f"{fit.huber:.6g}; residuals of log loss: rms {lack.rms:.2g}, largest {lack.largest:.2g}"
    ]
    if lack.p_value is not None:
        lines.append(
            f"against the scatter of seeds ({lack.seed_rms:.2g}): F = {lack.f:.3g}, p = "
            f"{lack.p_value:.2g}"
        )
    if lack.freedom < 5:
        lines.append(
            f"only {lack.freedom} runs more than constants: intervals are rough, rather too narrow"
        )
    return [*lines, held_out_line(fit.held_out)]


def held_out_line(held_out: HeldOut | None, target: str = "loss") -> str:
    """The error of a law at the largest budget, which it was fitted without."""
    if held_out is None:
        return "held out: nothing, the runs below the largest budget are too few"
    runs = f"{held_out.runs} row{'s' if held_out.runs > 1 else ''}"
    return (
        f"held out {runs} up to {number(held_out.budget)} FLOPs: {target} predicted "
        f"{held_out.error:+.2%} off, at most {held_out.largest:+.2%}"
    )


def lack_of_fit(fits: Iterable[tuple[str, str, LawFit]]) -> Table:
    """A row per (law, family, LawFit): residuals, seeds, and the largest budget held out."""
    header = (
        "law, family, runs, constants, rms residual, largest, scatter of seeds, F test: p, "
        "held out at FLOPs, runs held out, predicted off by, at most"
    )
    rows = []
    for law, family, fit in fits:
        lack, held_out = fit.lack_of_fit, fit.held_out
        size = lambda value, lack=lack: f"{100 * value:.2g}%" if lack.freedom > 0 else "exact"
        seeds = "one seed" if lack.seed_rms is None else f"{100 * lack.seed_rms:.2g}%"
        row = [law, family, str(lack.runs), str(lack.constants), size(lack.rms)]
        row += [size(lack.largest), seeds, number(lack.p_value)]
        if held_out is None:
            row += ["too few runs below", number(None), number(None), number(None)]
        else:
            row += [number(held_out.budget), str(held_out.runs)]
            row += [f"{held_out.error:+.2%}", f"{held_out.largest:+.2%}"]
        rows.append(tuple(row))
    return Table("", tuple(header.split(", ")), tuple(rows))
