"""How every picture of a report is drawn: sizes, axes, legends, and a law with its band.

A law is solid where it was fitted and dashed beyond. One without an interval is dotted and ends
with its points: what it would say further on is not known. A law's own figure is in its file.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from blt_jax.scaling.bootstrap import Estimate
from blt_jax.scaling.looks import Look
from blt_jax.scaling.number_format import brief, count

WIDTH = 7.0  # inches: the text width of a page
PAPER: dict[Any, Any] = {
    "figure.dpi": 160,
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "lines.markersize": 5,
    "svg.hashsalt": "blt_jax",  # ids in an SVG follow from its content
    "svg.fonttype": "path",  # the same everywhere, whatever fonts are there
}
# What matplotlib would write that is not in the picture: equal pictures are equal files.
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}
FURTHER = 10.0  # laws are drawn this factor beyond the largest budget


def paper() -> AbstractContextManager[None]:
    """The style in which every figure is made and saved."""
    return rc_context(PAPER)


@rc_context(PAPER)
def encoded(figure: Figure) -> dict[str, bytes]:
    """{"svg": bytes, "png": bytes} of a figure; equal figures give equal bytes."""
    files = {}
    for kind, metadata in METADATA.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        files[kind] = buffer.getvalue()
        figure.set_layout_engine("none")  # laid out once
    return files


@rc_context(PAPER)
def panels(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """(Figure of so many inches, its axes by row and column)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def outside(axis: Axes, **options: Any) -> None:
    """The legend to the right of the axis."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, **options)


def log_axis(axis: Axes, name: str, form: Callable[[float], str]) -> None:
    """A log axis "x" or "y" with form(value) at a few round ticks, as many as its data's range has
    room for.
    """
    axis.set(**{f"{name}scale": "log"})
    line, (low, high) = getattr(axis, f"{name}axis"), getattr(axis.dataLim, f"interval{name}")
    if high < 1.01 * low:
        line.set_major_locator(FixedLocator([low]))
    elif high < 5 * low:
        line.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
    else:
        subs = (1, 2, 5) if high < 25 * low else (1, 3) if high < 200 * low else (1,)
        line.set_major_locator(LogLocator(subs=subs, numticks=8))
    line.set_major_formatter(lambda value, _: form(value))
    line.set_minor_locator(NullLocator())


def flops_panels(
    figure: Figure,
    axes: Sequence[Axes],
    names: Sequence[str],
    logs: Sequence[bool] = (True, True),
) -> None:
    """Names and log axes of two panels against FLOPs, one legend for both below them."""
    for axis, name, log in zip(axes, names, logs, strict=True):
        if not np.isfinite(axis.dataLim.get_points()).all():  # nothing drawn, or nothing but NaN
            axis.text(
                0.5, 0.5, f"{name}: no optimum to show", ha="center", transform=axis.transAxes
            )
            axis.set_axis_off()
            continue
        axis.set(xlabel="training FLOPs", ylabel=name)
        log_axis(axis, "x", brief)
        if log:
            log_axis(axis, "y", count)
    handle_of: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        handle_of |= dict(zip(labels, handles, strict=True))
    options: dict[str, Any] = {"loc": "outside lower center", "ncols": 4}
    figure.legend(list(handle_of.values()), list(handle_of), **options)


def error_bars(estimates: Sequence[Estimate]) -> np.ndarray:
    """[2, K]: how far an interval reaches below and above its value; zero without one."""
    ends = [
        (e.value - e.low, e.high - e.value)
        if e.value is not None and e.low is not None and e.high is not None
        else (0.0, 0.0)
        for e in estimates
    ]
    return np.maximum(np.array(ends, float).reshape(-1, 2).T, 0)


def measured(
    axis: Axes, x: Sequence[float], estimates: Sequence[Estimate], look: Look, label: str
) -> None:
    """Points with their intervals where they have one."""
    values = np.array([estimate.value for estimate in estimates], float)
    bars: dict[str, Any] = {"capsize": 2, "lw": 1, "color": look.colour, "fmt": look.marker}
    axis.errorbar(x, values, error_bars(estimates), **bars, label=label)


def band(
    axis: Axes,
    x: np.ndarray,
    low_value_high: tuple[np.ndarray | None, np.ndarray, np.ndarray | None],
    look: Look,
    solid_to: float,
) -> None:
    """A law with its band behind; without one, dotted and no further than its points."""
    (low, value, high), inside = low_value_high, x <= solid_to
    axis.plot(x[inside], value[inside], "-" if low is not None else ":", color=look.colour, lw=1.3)
    if low is not None and high is not None:
        axis.plot(x[~inside], value[~inside], "--", color=look.colour, lw=1.1)
        axis.fill_between(x, low, high, color=look.colour, alpha=0.15, lw=0)
