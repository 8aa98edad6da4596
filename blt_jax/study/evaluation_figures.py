"""Figures of evaluations: languages and scripts, noises, thresholds, tasks. Bars are 90%."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from blt_jax.scaling import bootstrap
from blt_jax.scaling.figures import PAPER, WIDTH, error_bars, log_axis, outside, panels
from blt_jax.scaling.looks import Look
from blt_jax.scaling.number_format import brief
from blt_jax.study.evaluation_results import Noised, Score, Text, Turned

ROW = 0.17  # inches of a language
TOUCH = 0.05  # of the axis: figures nearer than that would touch
SIDE = 0.12  # how far two models lie apart beside each other


@rc_context(PAPER)
def labels(
    rows: Sequence[tuple[str, int, int, dict[str, Text]]], looks: Mapping[str, Look], label: str
) -> Figure:
    """Bytes per unit, BPB and bits per line of each model, a line per value of a label; shortest
    units first.
    """
    first = next(iter(looks))
    rows = sorted(rows, key=lambda row: row[3][first].bytes_per_unit)
    figure, [axes] = panels(WIDTH + 2, 1.1 + ROW * len(rows), columns=3, sharey=True)
    at = np.arange(len(rows))
    for name, look in looks.items():
        texts = [row[3][name] for row in rows]
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ls": "", "ms": 3.5}
        axes[0].plot([text.bytes_per_unit for text in texts], at, label=look.label, **style)
        for axis, estimates in (
            (axes[1], [text.bpb for text in texts]),
            (axes[2], [text.bits_per_line for text in texts]),
        ):
            bars = {"xerr": error_bars(estimates), "elinewidth": 0.8, "label": look.label}
            axis.errorbar([estimate.value for estimate in estimates], at, **(style | bars))
    for axis, name in zip(
        axes, ("bytes per patch or token", "bits per byte", "bits per line"), strict=True
    ):
        axis.set_xlabel(name)
    axes[0].set_yticks(at, [row[0] for row in rows])
    axes[0].set(ylabel=label, ylim=(-0.7, len(rows) - 0.3))
    log_axis(axes[0], "x", brief)
    log_axis(axes[2], "x", brief)
    outside(axes[2])
    return figure


@rc_context(PAPER)
def noises(rows: Mapping[str, dict[str, Noised]], looks: Mapping[str, Look]) -> Figure:
    """Bits per byte of the clean text under each noise, and their rise over the clean text's."""
    figure, axes = panels(WIDTH, 4.6, rows=2, sharex=True)
    axes = axes[:, 0]
    at = np.arange(len(rows))
    for i, (name, look) in enumerate(looks.items()):
        own = [(j, row[name]) for j, row in enumerate(rows.values()) if name in row]
        x = at[[j for j, _ in own]] + SIDE * (i - (len(looks) - 1) / 2)
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ls": ""}
        style |= {"elinewidth": 1, "label": look.label}
        for axis, estimates in (
            (axes[0], [noised.bpb for _, noised in own]),
            (axes[1], [noised.rise for _, noised in own]),
        ):
            values = [estimate.value for estimate in estimates]
            axis.errorbar(x, values, yerr=error_bars(estimates), **style)
    axes[0].set_ylabel("bits per byte\nof the clean text")
    axes[1].set_ylabel("bits over those\nof the clean text")
    axes[1].set_xticks(at, list(rows))
    outside(axes[0])
    return figure


@rc_context(PAPER)
def tasks(rows: Mapping[tuple[str, str], dict[str, Score]], looks: Mapping[str, Look]) -> Figure:
    """Scores of each model, a panel per metric and a line per task, clean above noised."""
    metrics = list(dict.fromkeys(metric for _, metric in rows))
    most = max(sum(own == metric for _, own in rows) for metric in metrics)
    figure, axes = panels(WIDTH + 1, 0.8 + (0.4 + ROW * most) * len(metrics), rows=len(metrics))
    for axis, metric in zip(axes[:, 0], metrics, strict=True):
        names = [task for task, own in rows if own == metric]
        for i, (name, look) in enumerate(looks.items()):
            scores = [
                (j, rows[task, metric][name].value)
                for j, task in enumerate(names)
                if name in rows[task, metric]
            ]
            y = [j + SIDE * (i - (len(looks) - 1) / 2) for j, _ in scores]
            estimates = [estimate for _, estimate in scores]
            style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ls": ""}
            style |= {"elinewidth": 0.8, "ms": 3.5, "label": look.label}
            values = [estimate.value for estimate in estimates]
            axis.errorbar(values, y, xerr=error_bars(estimates), **style)
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel=metric, ylim=(len(names) - 0.5, -0.5))
    outside(axes[0, 0])
    return figure


@rc_context(PAPER)
def threshold_sweeps(
    rows: Mapping[str, Sequence[Turned]],
    looks: Mapping[str, Look],
    others: Mapping[str, tuple[float, float]],
) -> Figure:
    """BPB against forward FLOPs per byte along thresholds, the trained one ringed; bars: of the
    difference to it.

    `others`: {model: (FLOPs per byte, BPB)} of models whose patches follow no threshold.
    """
    figure, [[axis]] = panels(WIDTH, 3.4)
    ends = [at.flops["total"] for sweep in rows.values() for at in sweep]
    ends += [flops for flops, _ in others.values()]
    for name, sweep in rows.items():
        look = looks[name]
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "lw": 1.2}
        flops_T, bpb_T = [at.flops["total"] for at in sweep], [at.bpb.value for at in sweep]
        bars = error_bars([at.gap or bootstrap.estimate(0.0) for at in sweep])
        axis.errorbar(flops_T, bpb_T, yerr=bars, elinewidth=0.8, label=look.label, **style)
        labelled: list[float] = []
        # The trained one first: of figures that would touch, the later one is left out.
        for at in sorted(sweep, key=lambda at: at.gap is not None):
            place = at.flops["total"], at.bpb.value
            if at.gap is None:
                axis.plot(*place, "o", mfc="none", mec=look.colour, ms=12)
            least = TOUCH * np.log(max(ends) / min(ends))
            if all(abs(np.log(place[0] / x)) > least for x in labelled):
                labelled.append(place[0])
                text = f"{at.bytes_per_unit:.1f}"
                axis.annotate(text, place, (0, 8), textcoords="offset points", ha="center", size=7)
    for name, (flops, bpb) in others.items():
        look = looks[name]
        axis.plot([flops], [bpb], color=look.colour, marker=look.marker, ls="", label=look.label)
    log_axis(axis, "x", brief)
    log_axis(axis, "y", brief)
    axis.set(
        xlabel="forward FLOPs per byte (exact, entropy model included)", ylabel="bits per byte"
    )
    outside(axis)
    return figure
