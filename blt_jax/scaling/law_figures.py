"""Figures of laws: measured points with 90% intervals, the law, its band. Log axes; looks as in
plots.py.

A law is solid where it was fitted and dashed beyond. One without an interval is dotted and ends
with its points: what it would say further on is not known.
"""

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import NullLocator

from blt_jax.scaling import bootstrap, figures, law_fit
from blt_jax.scaling.figures import (
    PAPER,
    WIDTH,
    flops_told,
    log_axis,
    outside,
    panels,
    plain,
    short,
)
from blt_jax.scaling.laws.frontier import best_sizes
from blt_jax.scaling.laws.isoflop import minimum

FURTHER = 10.0  # laws are drawn this factor beyond the largest budget
ROW = 4  # panels of families beside each other


def looks_of(families):
    """Looks for a table's own names; a table without families has one, called all."""
    return figures.looks({family: "runs" if family == "all" else family for family in families})


@rc_context(PAPER)
def frontiers(
    table, fits, crossings=(), looks=None, scored=None, convention=None, measure="bits per byte"
):
    """BPB against training FLOPs: every run faint, best sizes at each budget, and the law of
    {family: FrontierFit}.

    A family without a law keeps its best sizes, joined by dots. Crossings that have an interval are
    dotted lines. `scored` is the same table with the entropy model's scoring in its FLOPs: hollow
    markers.
    """
    figure, [[axis]] = panels(WIDTH, 3.8)
    looks = looks or looks_of(table.families())
    hollow = None
    for family in table.families():
        own, look, found = table.of(family), looks[family], fits.get(family)
        axis.scatter(
            own["flops"], own["bpb"], color=look.colour, marker=look.marker, s=9, alpha=0.25, lw=0
        )
        best = [own.where(mask_M) for _, mask_M in best_sizes(own)]
        if found:
            flops_K, bpb_K = (
                [point.flops for point in found.points],
                [point.bpb for point in found.points],
            )
            flops_X = np.geomspace(min(flops_K), max(flops_K) * FURTHER, 200)
            _band(axis, flops_X, found.law.band(flops=flops_X), look, solid_to=max(flops_K))
        else:
            flops_K = [one["flops"].mean() for one in best]
            bpb_K = [bootstrap.estimate(one["bpb"].mean()) for one in best]
            axis.plot(flops_K, [one.value for one in bpb_K], ":", color=look.colour, lw=1.1)
        label = (
            look.label
            if found is None or found.basis == "envelope"
            else f"{look.label} ({found.basis})"
        )
        _measured(axis, flops_K, bpb_K, look, label)
        if scored is not None and (scored.of(family)["flops"] > own["flops"]).any():
            with_scores = scored.of(family)
            flops_K = [with_scores["flops"][mask_M].mean() for _, mask_M in best_sizes(own)]
            bpb_K = [one["bpb"].mean() for one in best]
            hollow = {
                "mfc": "white",
                "mec": look.colour,
                "color": look.colour,
                "marker": look.marker,
                "ls": "",
            }
            axis.plot(flops_K, bpb_K, **hollow)
    if hollow:
        told = {"mec": "#444444", "color": "#444444", "marker": "o"}
        axis.plot([], [], **(hollow | told), label="hollow: with the\nentropy model's scoring")
    for budget in (
        one for crossing in crossings for one in crossing.budgets if one.low is not None
    ):
        axis.axvline(budget.value, color="#444444", ls=":", lw=1)
        axis.axvspan(budget.low, budget.high, color="#444444", alpha=0.08, lw=0)
    log_axis(axis, "x", flops_told)
    log_axis(axis, "y", plain)
    axis.set(xlabel="training FLOPs" + (f" ({convention})" if convention else ""), ylabel=measure)
    handles, _ = (
        axis.get_legend_handles_labels()
    )  # matplotlib puts lines, the hollow one, before points with bars
    outside(axis, handles=handles[1:] + handles[:1] if hollow else handles)
    return figure


@rc_context(PAPER)
def parabolas(table, fits, looks=None, measure="bits per byte"):
    """BPB against size at each budget, a panel per family; a star is a minimum inside the grid,
    with its interval.
    """
    looks, families = looks or looks_of(table.families()), table.families()
    columns = min(len(families), ROW)
    rows = -(-len(families) // columns)
    figure, axes = panels(max(WIDTH, 2.2 * columns), 0.5 + 2.6 * rows, rows, columns, sharey=True)
    budgets = np.unique(table.budget)
    norm = LogNorm(budgets[0] / 1.6, budgets[-1] * 1.6)  # not up to the palest ends of the scale
    for axis in axes.flat[len(families) :]:
        axis.remove()
    for axis, family in zip(axes.flat, families, strict=False):
        own, found = table.of(family), fits.get(family)
        inside = {one.budget: one for one in found.minima if one.params.value} if found else {}
        for budget in np.unique(own.budget):
            at = own.where(own.budget == budget)
            colour = colormaps["viridis"](norm(budget))
            axis.plot(at["params"], at["bpb"], looks[family].marker, color=colour, ms=4)
            parabola = minimum(at["params"], at["bpb"]).coefficients
            if parabola:
                size_X = np.geomspace(at["params"].min(), at["params"].max(), 60)
                axis.plot(size_X, np.polyval(parabola, np.log(size_X)), color=colour, lw=1)
            if budget in inside:
                best, bars = (
                    inside[budget],
                    {"mec": "black", "mew": 0.7, "ecolor": "black", "elinewidth": 0.9},
                )
                ends = _ends([best.params])
                axis.errorbar(
                    [best.params.value],
                    [best.loss.value],
                    xerr=ends,
                    fmt="*",
                    ms=10,
                    color=colour,
                    **bars,
                )
        log_axis(axis, "x", short)
        log_axis(axis, "y", plain)
        axis.set(title=looks[family].label, xlabel="parameters")
    for axis in axes[:, 0]:
        axis.set_ylabel(measure)
    scale = figure.colorbar(
        ScalarMappable(norm, "viridis"), ax=axes, label="training FLOPs", aspect=30, pad=0.02
    )
    picked = budgets[np.unique(np.linspace(0, len(budgets) - 1, 6).round().astype(int))]
    scale.set_ticks(picked, labels=[flops_told(one) for one in picked])
    scale.ax.yaxis.set_minor_locator(NullLocator())
    return figure


@rc_context(PAPER)
def isoflops(fits, looks=None):
    """Best size and data against budget for {family: IsoflopFit}, with their power laws."""
    figure, [axes] = panels(WIDTH, 3.2, 1, 2)
    looks = looks or looks_of(fits)
    for family, found in fits.items():
        inside = [one for one in found.minima if one.params.value is not None]
        if not inside:
            continue
        budgets, look = [one.budget for one in inside], looks[family]
        for axis, name, law in ((axes[0], "params", found.params), (axes[1], "data", found.data)):
            _measured(axis, budgets, [getattr(one, name) for one in inside], look, look.label)
            if law:
                flops_X = np.geomspace(min(budgets), max(budgets) * FURTHER, 100)
                _band(axis, flops_X, law.band(flops_X), look, solid_to=max(budgets))
    _finished(figure, axes, ("best parameters", "data at the best size"))
    return figure


@rc_context(PAPER)
def chinchillas(fits, table, looks=None):
    """What {family: LawFit} of the Chinchilla law leaves of each run, and the compute-optimal split
    that follows.
    """
    figure, [axes] = panels(WIDTH, 3.2, 1, 2)
    looks = looks or looks_of(fits)
    for family, found in fits.items():
        own, look = table.of(family), looks[family]
        left = 100 * (own["loss"] / found.predict(params=own["params"], data=own["data"]) - 1)
        style = {"color": look.colour, "marker": look.marker, "s": 12, "alpha": 0.6, "lw": 0}
        axes[0].scatter(own["flops"], left, **style, label=look.label)
        flops_X = np.geomspace(own["flops"].min(), own["flops"].max() * FURTHER, 100)
        split = law_fit.allocation(found, flops_X)
        _band(axes[1], flops_X, split.params, look, own["flops"].max())
        axes[1].plot(flops_X[::33], split.params[1][::33], look.marker, color=look.colour)
    axes[0].axhline(0, color="#444444", lw=0.8)
    _finished(
        figure, axes, ("loss over the law, %", "compute-optimal parameters"), logs=(False, True)
    )
    return figure


@rc_context(PAPER)
def patches(found):
    """Best patch size against budget, and best size for each patch size, of a PatchFit."""
    figure, [axes] = panels(WIDTH, 3.2, 1, 2)
    inside = [one for one in found.optima if one.patch.value is not None]
    budgets = sorted({one.budget for one in found.optima})
    flops_X = np.geomspace(budgets[0], budgets[-1] * FURTHER, 100)
    look = figures.Look("optimum of paraboloid", figures.COLOURS[0], figures.MARKERS[0])
    if inside:
        _measured(
            axes[0], [one.budget for one in inside], [one.patch for one in inside], look, look.label
        )
    if found.patch:
        _band(axes[0], flops_X, found.patch.band(flops_X), look, budgets[-1])
    sizes = sorted({one.patch for one in found.best_sizes})
    for i, patch in enumerate(sizes):
        colour = colormaps["viridis"](0.05 + 0.85 * i / max(len(sizes) - 1, 1))
        look = figures.Look(f"T = {patch:.3g}", colour, figures.MARKERS[i % len(figures.MARKERS)])
        own = [one for one in found.best_sizes if one.patch == patch]
        _measured(
            axes[1], [one.budget for one in own], [one.params for one in own], look, look.label
        )
        if found.params:
            _band(axes[1], flops_X, found.params.band(flops_X, patch), look, budgets[-1])
    _finished(figure, axes, ("best bytes per patch", "best parameters"))
    return figure


def _finished(figure, axes, names, logs=(True, True)):
    """Names and log axes of two panels against FLOPs, one legend for both below them."""
    for axis, name, log in zip(axes, names, logs, strict=True):
        if not np.isfinite(axis.dataLim.get_points()).all():  # nothing drawn, or nothing but NaN
            axis.text(
                0.5, 0.5, f"{name}: no optimum to show", ha="center", transform=axis.transAxes
            )
            axis.set_axis_off()
            continue
        axis.set(xlabel="training FLOPs", ylabel=name)
        log_axis(axis, "x", flops_told)
        if log:
            log_axis(axis, "y", short)
    told = {}
    for axis in axes:
        told |= {
            name: handle for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
        }
    figure.legend(list(told.values()), list(told), loc="outside lower center", ncols=4)


def _ends(estimates):
    """ends_2xK of error bars: how far an interval reaches below and above its value, zero without
    one.
    """
    pairs = [
        (e.value - e.low, e.high - e.value) if e.low is not None else (0.0, 0.0) for e in estimates
    ]
    return np.maximum(np.array(pairs).reshape(-1, 2).T, 0)


def _measured(axis, x, estimates, look, label):
    """Points with their intervals where they have one."""
    values = [one.value for one in estimates]
    bars = {"capsize": 2, "lw": 1, "color": look.colour, "fmt": look.marker}
    axis.errorbar(x, values, _ends(estimates), **bars, label=label)


def _band(axis, x, band, look, solid_to):
    """A law with its band behind; without one, dotted and no further than its points."""
    (low, value, high), inside = band, x <= solid_to
    axis.plot(x[inside], value[inside], "-" if low is not None else ":", color=look.colour, lw=1.3)
    if low is not None:
        axis.plot(x[~inside], value[~inside], "--", color=look.colour, lw=1.1)
        axis.fill_between(x, low, high, color=look.colour, alpha=0.15, lw=0)
