"""Figures of fits: measured points with 90% intervals, the law, its band. Log axes; colours as in plots.py."""

import numpy as np
from matplotlib import colormaps

from blt_jax.scaling import fit
from blt_jax.scaling.plots import COLOURS, panels

FURTHER = 10.0  # laws are drawn this factor beyond the largest budget


def frontiers(fits, crossings=(), points=None):
    """BPB against training FLOPs for FrontierFits, all runs faint behind if Points are given; crossings dotted."""
    figure, [[axis]] = panels(6.5, 4)
    for found, colour in zip(fits, COLOURS, strict=False):
        if points is not None:
            own = points.of(found.family)
            axis.scatter(own["flops"], own["bpb"], color=colour, s=6, alpha=0.25, lw=0)
        flops_K = [point.flops for point in found.points]
        _measured(axis, flops_K, [point.bpb for point in found.points], colour, f"{found.family} ({found.basis})")
        flops_X = np.geomspace(min(flops_K), max(flops_K) * FURTHER, 200)
        _band(axis, flops_X, found.law.band(flops=flops_X), colour, solid_to=max(flops_K))
    for crossing in crossings:
        for budget in crossing.budgets:
            axis.axvline(budget.value, color="#444444", ls=":", lw=1)
            if budget.low is not None:
                axis.axvspan(budget.low, budget.high, color="#444444", alpha=0.08, lw=0)
    axis.set(xlabel="training FLOPs", ylabel="bits per byte", xscale="log", yscale="log")
    axis.yaxis.set_major_formatter("{x:.3g}")  # bits per byte span less than a decade: no powers of ten
    axis.yaxis.set_minor_formatter("{x:.3g}")
    return _finished(figure, axis)


def isoflops(fits):
    """Best size and data against budget for {family: IsoflopFit}."""
    figure, [axes] = panels(9, 3.8, 1, 2)
    for (family, found), colour in zip(fits.items(), COLOURS, strict=False):
        inside = [one for one in found.minima if one.params.value is not None]
        budgets = [one.budget for one in inside]
        for axis, name, law in ((axes[0], "params", found.params), (axes[1], "data", found.data)):
            power = f" ~ C^{law.exponents['flops'].value:.3f}" if law else ""
            _measured(axis, budgets, [getattr(one, name) for one in inside], colour, _name(family) + power)
            if law:
                flops_X = np.geomspace(min(budgets), max(budgets) * FURTHER, 100)
                _band(axis, flops_X, law.band(flops_X), colour, solid_to=max(budgets))
    for axis, name in zip(axes, ("best parameters", "data at the best size"), strict=True):
        axis.set(xlabel="training FLOPs", ylabel=name, xscale="log", yscale="log")
        axis.legend(frameon=False, fontsize=8)
    return figure


def chinchillas(fits, points):
    """What {family: LawFit} of the Chinchilla law leaves of each run, and the compute-optimal split that follows."""
    figure, [axes] = panels(9, 3.8, 1, 2)
    for (family, found), colour in zip(fits.items(), COLOURS, strict=False):
        own = points.of(family)
        left = 100 * (own["loss"] / found.predict(params=own["params"], data=own["data"]) - 1)
        axes[0].scatter(own["flops"], left, color=colour, s=10, alpha=0.6, lw=0, label=_name(family))
        flops_X = np.geomspace(own["flops"].min(), own["flops"].max() * FURTHER, 100)
        split = fit.allocation(found, flops_X)
        _band(axes[1], flops_X, split.params, colour, own["flops"].max(), f"{_name(family)} ~ C^{split.a.value:.3f}")
    axes[0].axhline(0, color="#444444", lw=0.8)
    axes[0].set(xlabel="training FLOPs", ylabel="loss over the law, %", xscale="log")
    axes[1].set(xlabel="training FLOPs", ylabel="compute-optimal parameters", xscale="log", yscale="log")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    return figure


def patches(found):
    """Best patch size against budget, and best size for each patch size, of a PatchFit."""
    figure, [axes] = panels(9, 3.8, 1, 2)
    inside = [one for one in found.optima if one.patch.value is not None]
    budgets = sorted({one.budget for one in found.optima})
    flops_X = np.geomspace(budgets[0], budgets[-1] * FURTHER, 100)
    _measured(
        axes[0], [one.budget for one in inside], [one.patch for one in inside], COLOURS[0], "optimum of paraboloid"
    )
    if found.patch:
        _band(axes[0], flops_X, found.patch.band(flops_X), COLOURS[0], budgets[-1])
    axes[0].legend(frameon=False, fontsize=8)
    sizes = sorted({one.patch for one in found.best_sizes})
    for i, patch in enumerate(sizes):
        colour = colormaps["viridis"](0.05 + 0.85 * i / max(len(sizes) - 1, 1))
        own = [one for one in found.best_sizes if one.patch == patch]
        _measured(axes[1], [one.budget for one in own], [one.params for one in own], colour, f"T = {patch:.3g}")
        if found.params:
            _band(axes[1], flops_X, found.params.band(flops_X, patch), colour, budgets[-1])
    axes[0].set(xlabel="training FLOPs", ylabel="best bytes per patch", xscale="log", yscale="log")
    axes[1].set(xlabel="training FLOPs", ylabel="best parameters", xscale="log", yscale="log")
    return _finished(figure, axes[1])


def _name(family):
    """A table without families has one, called all."""
    return "runs" if family == "all" else family


def _measured(axis, x, estimates, colour, label):
    """Points with their intervals where they have one."""
    values = np.array([one.value for one in estimates])
    ends = np.array([[one.low or one.value, one.high or one.value] for one in estimates]).reshape(-1, 2)
    bars = np.maximum(np.abs(ends.T - values), 0)
    axis.errorbar(x, values, bars, fmt="o", ms=4, color=colour, capsize=2, lw=1, label=label)


def _band(axis, x, band, colour, solid_to, label=None):
    """A law: solid where it was fitted, dashed beyond; its band behind."""
    low, value, high = band
    inside = x <= solid_to
    axis.plot(x[inside], value[inside], color=colour, lw=1.3, label=label)
    axis.plot(x[~inside], value[~inside], "--", color=colour, lw=1.1)
    if low is not None:
        axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def _finished(figure, axis):
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=8)
    return figure
