"""The report's pictures: matplotlib figures from points and row indexes, one function each."""

import json

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from blt_jax.scaling import curves
from blt_jax.scaling.isoflop import minimum

# Okabe-Ito: told apart by colour-blind readers. Families keep their colour through the report.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = {"encoder": "#56B4E9", "pooling": "#E69F00", "latent": "#0072B2", "decoder": "#009E73", "head": "#999999"}


def panels(width, height, rows=1, columns=1, **how):
    """(Figure, its axes by row and column), inches."""
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **how)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    return figure, axes


def _outside(axis):
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def _log_ticks(axis, values):
    """A log axis with marks at the values that occur, and no others."""
    axis.set_xscale("log")
    axis.set_xticks(
        values, [f"{value:.3g}".replace("e+", "e") if value >= 1e6 else f"{value / 1e3:.0f}k" for value in values]
    )
    axis.xaxis.set_minor_locator(NullLocator())


def scaling(points, labels, colours, convention):
    """BPB against training FLOPs: all runs, each family's best size, and the same with entropy scoring added."""
    figure, [[axis]] = panels(8.5, 4.2)
    for family, label in labels.items():
        own = [p for p in points if p.family == family]
        axis.scatter([p.flops(convention) for p in own], [p.bpb for p in own], color=colours[family], s=14, alpha=0.4)
        best = curves.envelope(points, family)
        for entropy, style in ((False, "-o"), (True, "--o")):
            flops = [np.mean([p.flops(convention, entropy) for p in group]) for _, _, group in best]
            if entropy and not any(p.cost["entropy_model_flops"][convention] for p in own):
                continue
            face = "white" if entropy else colours[family]
            name = f"{label} + entropy scoring" if entropy else label
            axis.plot(
                flops, [bpb for _, bpb, _ in best], style, color=colours[family], markerfacecolor=face, label=name
            )
    _log_ticks(axis, sorted({p.budget for p in points}))
    axis.set(xlabel=f"training FLOPs ({convention})", ylabel="validation bits per byte")
    _outside(axis)
    return figure


def isoflop(points, labels, convention):
    """BPB against size at each budget, a panel per family, with the minimum where it lies inside the grid."""
    figure, axes = panels(3.6 * len(labels), 3.8, 1, len(labels), sharey=True)
    budgets = sorted({p.budget for p in points})
    shade = {b: (0.1 + 0.75 * i / max(len(budgets) - 1, 1)) for i, b in enumerate(budgets)}
    for axis, (family, label) in zip(axes[0], labels.items(), strict=True):
        for budget in budgets:
            groups = [g for (f, _, b), g in curves.mean_over_seeds(points).items() if f == family and b == budget]
            if not groups:
                continue
            x = np.array([g[0].parameters for g in groups], float)
            y = np.array([np.mean([p.bpb for p in g]) for g in groups])
            colour = colormaps["viridis"](shade[budget])
            axis.scatter(x, y, color=colour, label=f"{budget:.3g} FLOPs".replace("e+", "e"))
            found = minimum(x, y)
            if found.coefficients:
                dense = np.geomspace(x.min(), x.max(), 60)
                axis.plot(dense, np.polyval(found.coefficients, np.log(dense)), color=colour, lw=1)
            if found.parameters:
                axis.plot(found.parameters, found.bpb, "*", ms=14, color=colour, markeredgecolor="black")
        _log_ticks(axis, sorted({p.parameters for p in points if p.family == family}))
        axis.set(title=label, xlabel="non-embedding parameters")
    axes[0, 0].set_ylabel("validation bits per byte")
    _outside(axes[0, -1])
    return figure


def patch_lengths(headers, labels, colours):
    """Share of patches of each length, per patched family."""
    figure, [[axis]] = panels(8.5, 3.4)
    for family, header in headers.items():
        counts = np.array(header["patch_lengths"][1:33], float)
        mean = header["text_bytes_per_patch"]
        share = counts / max(sum(header["patch_lengths"]), 1)
        axis.step(np.arange(1, len(share) + 1), share, where="mid", color=colours[family], label=labels[family])
        axis.axvline(mean, color=colours[family], ls=":", lw=1)
    axis.set(xlabel="bytes in a patch (dotted: mean in training rows)", ylabel="share of patches", xlim=(0, 32.5))
    _outside(axis)
    return figure


def flops_per_byte(points, labels, convention, entropy_model):
    """Forward FLOPs per byte by part, a bar per family and size; the entropy model hatched on top."""
    first = {}
    for p in sorted(points, key=lambda p: p.parameters):
        first.setdefault((p.family, p.size), p)
    bars = [first[key] for family in labels for key in first if key[0] == family]
    figure, [[axis]] = panels(8.5, 4)
    bottom = np.zeros(len(bars))
    for part, colour in LINES.items():
        heights = np.array([p.cost["forward_flops_per_byte"][convention][part] for p in bars])
        axis.bar(range(len(bars)), heights, bottom=bottom, color=colour, label=part)
        bottom += heights
    if entropy_model:
        uses = np.array([bool(p.cost["entropy_model_flops"][convention]) for p in bars])
        extra = uses * entropy_model["forward_flops_per_byte"][convention]
        own = np.flatnonzero(uses)
        axis.bar(own, extra[own], bottom=bottom[own], fill=False, hatch="///", label="entropy model")
    axis.set_xticks(
        range(len(bars)), [f"{labels[p.family]}\n{p.size}" for p in bars], rotation=60, ha="right", fontsize=8
    )
    axis.set_ylabel(f"forward FLOPs per byte ({convention})")
    _outside(axis)
    return figure


def training(points, labels, colours):
    """Training BPB against bytes at the largest budget, each family's best size."""
    figure, [[axis]] = panels(8.5, 3.8)
    for family, label in labels.items():
        best = curves.envelope(points, family)
        if not best:
            continue
        for point in best[-1][2]:
            lines = (point.folder / "metrics.jsonl").read_text().splitlines()
            records = [json.loads(line) for line in lines]
            x, y = [r["text_bytes"] for r in records], [r["bpb"] for r in records]
            name = f"{label}, {point.size}" if point is best[-1][2][0] else None
            axis.plot(x, y, color=colours[family], label=name, lw=1.2)
    axis.set_xscale("log")
    axis.set(xlabel="text bytes read", ylabel="training bits per byte")
    _outside(axis)
    return figure


PER_LINE = 64  # bytes of sample text per line


def sample(text, entropies, families, colours):
    """The sample text cut into patches: per family, lines of boxed patches under bars of entropy."""
    lines = -(-len(text) // PER_LINE)
    figure = Figure(figsize=(11, 0.35 + len(families) * (0.4 + 0.62 * lines)), dpi=160, layout="constrained")
    axes = figure.subplots(len(families), 1, squeeze=False)[:, 0]
    highest = max(max(entropies, default=0), 1e-9)
    for axis, (family, told) in zip(axes, families.items(), strict=True):
        axis.set(xlim=(-0.5, PER_LINE + 0.5), ylim=(-2.0 * lines + 0.1, 0.9))
        axis.axis("off")
        threshold = told["threshold"]
        note = f", threshold {threshold:.2f} nats (dashed)" if threshold is not None else ""
        axis.set_title(
            f"{told['label']}: {len(told['starts'])} patches of {len(text)} bytes{note}", loc="left", fontsize=10
        )
        patch = np.cumsum(np.isin(np.arange(len(text)), told["starts"]))
        for i, byte in enumerate(text):
            x, y = i % PER_LINE, -2.0 * (i // PER_LINE)
            shade = 0.34 if patch[i] % 2 else 0.12
            axis.add_patch(Rectangle((x, y - 0.9), 1, 0.8, color=colours[family], alpha=shade, lw=0))
            axis.text(x + 0.5, y - 0.52, _visible(byte), ha="center", va="center", family="monospace", fontsize=8.5)
            if i in told["starts"]:
                axis.plot([x, x], [y - 0.92, y - 0.06], color=colours[family], lw=1.4)
            if entropies:
                axis.add_patch(Rectangle((x + 0.15, y), 0.7, 0.8 * entropies[i] / highest, color="#777777", lw=0))
        if threshold is not None and entropies:
            for line in range(lines):
                y = -2.0 * line + 0.8 * threshold / highest
                axis.plot([0, PER_LINE], [y, y], "--", color="#D55E00", lw=0.8)
    return figure


def _visible(byte):
    """One visible character for a byte."""
    if byte == 0x20:
        return "\u00b7"
    if byte == 0x0A:
        return "\u00b6"
    return chr(byte) if 0x21 <= byte < 0x7F else "\u25a1"
