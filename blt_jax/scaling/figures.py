"""The look of the report's pictures, and those of a study: patches, FLOPs per byte, training (laws:
fit_plots.py).
"""

import dataclasses
import io

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from blt_jax.runs import run_files
from blt_jax.study import results

# Okabe-Ito: told apart by colour-blind readers. Eight markers beside seven colours: no two of 56
# families look alike, and few families do so in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINES = {
    "encoder": "#56B4E9",
    "pooling": "#E69F00",
    "latent": "#0072B2",
    "decoder": "#009E73",
    "head": "#999999",
}
WIDTH = 7.0  # inches: the text width of a page
PAPER = {
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
METADATA = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


@dataclasses.dataclass(frozen=True)
class Look:
    """How a family appears in every picture."""

    label: str
    colour: str
    marker: str


def looks(labels):
    """{family: Look} of {family: label}."""
    return {
        family: Look(label, COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)])
        for i, (family, label) in enumerate(labels.items())
    }


@rc_context(PAPER)
def encoded(figure):
    """{"svg": bytes, "png": bytes} of a figure; equal figures give equal bytes."""
    files = {}
    for kind, metadata in METADATA.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        files[kind] = buffer.getvalue()
        figure.set_layout_engine("none")  # found once, kept
    return files


@rc_context(PAPER)
def panels(width, height, rows=1, columns=1, **how):
    """(Figure, its axes by row and column), inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def outside(axis, **how):
    """The legend to the right of the axis."""
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, **how)


def short(value):
    """27k, 1.3M, 8B: counts for a tick or a table."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit <= value < 1000 * unit:
            return f"{value / unit:.3g}{name}"
    return flops_told(value)


def flops_told(value):
    """5e10, 1.02e21."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e")


def plain(value):
    """1.25, for what spans less than a decade."""
    return f"{value:.3g}"


def log_axis(axis, name, told):
    """A log axis "x" or "y", told(value) at a few round marks: as many as its data's range has room
    for.
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
    line.set_major_formatter(lambda value, _: told(value))
    line.set_minor_locator(NullLocator())


@rc_context(PAPER)
def patch_lengths(headers, looks):
    """Share of patches of each length, per patched family."""
    figure, [[axis]] = panels(WIDTH, 2.8)
    for family, header in headers.items():
        counts = np.array(header["patch_lengths"][1:33], float)
        mean = header["text_bytes_per_patch"]
        share = counts / max(sum(header["patch_lengths"]), 1)
        look = looks[family]
        axis.step(
            np.arange(1, len(share) + 1), share, where="mid", color=look.colour, label=look.label
        )
        axis.axvline(mean, color=look.colour, ls=":", lw=1)
    axis.set(
        xlabel="bytes in a patch (dotted: mean in training rows)",
        ylabel="share of patches",
        xlim=(0, 32.5),
    )
    outside(axis)
    return figure


@rc_context(PAPER)
def flops_per_byte(points, looks, convention, entropy_model):
    """Forward FLOPs per byte by part, a bar per family and size; the entropy model hatched on
    top.
    """
    first = {}
    for p in sorted(points, key=lambda p: p.parameters):
        first.setdefault((p.family, p.size), p)
    bars = [first[key] for family in looks for key in first if key[0] == family]
    figure, [[axis]] = panels(WIDTH, 3.6)
    bottom = np.zeros(len(bars))
    for part, colour in LINES.items():
        heights = np.array([p.cost["forward_flops_per_byte"][convention][part] for p in bars])
        axis.bar(range(len(bars)), heights, bottom=bottom, color=colour, label=part)
        bottom += heights
    if entropy_model:
        uses = np.array([bool(p.cost["entropy_model_flops"][convention]) for p in bars])
        extra = uses * entropy_model["forward_flops_per_byte"][convention]
        own = np.flatnonzero(uses)
        axis.bar(
            own, extra[own], bottom=bottom[own], fill=False, hatch="///", label="entropy model"
        )
    names = [f"{looks[p.family].label}, {p.size}" for p in bars]
    axis.set_xticks(range(len(bars)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_ylabel(f"forward FLOPs per byte ({convention})")
    outside(axis)
    return figure


@rc_context(PAPER)
def training(points, looks):
    """Training BPB against bytes at the largest budget, each family's best size."""
    figure, [[axis]] = panels(WIDTH, 3.4)
    for family, look in looks.items():
        best = results.envelope(points, family)
        if not best:
            continue
        for point in best[-1][2]:
            records = run_files.metrics(point.folder)
            x, y = [r["text_bytes"] for r in records], [r["bpb"] for r in records]
            name = f"{look.label}, {point.size}" if point is best[-1][2][0] else None
            axis.plot(
                x, y, color=look.colour, marker=look.marker, markevery=0.2, label=name, lw=1.2
            )
    log_axis(axis, "x", short)
    log_axis(axis, "y", plain)
    axis.set(xlabel="text bytes read", ylabel="training bits per byte")
    outside(axis)
    return figure


PER_LINE = 64  # bytes of sample text per line


@rc_context(PAPER)
def sample(text, entropies, families, looks):
    """The sample text cut into patches: per family, lines of boxed patches under bars of
    entropy.
    """
    lines = -(-len(text) // PER_LINE)
    figure = Figure(figsize=(11, 0.35 + len(families) * (0.4 + 0.62 * lines)), layout="constrained")
    axes = figure.subplots(len(families), 1, squeeze=False)[:, 0]
    highest = max(max(entropies, default=0), 1e-9)
    for axis, (family, told) in zip(axes, families.items(), strict=True):
        axis.set(xlim=(-0.5, PER_LINE + 0.5), ylim=(-2.0 * lines + 0.1, 0.9))
        axis.axis("off")
        threshold = told["threshold"]
        note = f", threshold {threshold:.2f} nats (dashed)" if threshold is not None else ""
        axis.set_title(
            f"{told['label']}: {len(told['starts'])} patches of {len(text)} bytes{note}",
            loc="left",
            fontsize=10,
        )
        patch = np.cumsum(np.isin(np.arange(len(text)), told["starts"]))
        for i, byte in enumerate(text):
            x, y = i % PER_LINE, -2.0 * (i // PER_LINE)
            shade = 0.34 if patch[i] % 2 else 0.12
            axis.add_patch(
                Rectangle((x, y - 0.9), 1, 0.8, color=looks[family].colour, alpha=shade, lw=0)
            )
            axis.text(
                x + 0.5,
                y - 0.52,
                _visible(byte),
                ha="center",
                va="center",
                family="monospace",
                fontsize=8.5,
            )
            if i in told["starts"]:
                axis.plot([x, x], [y - 0.92, y - 0.06], color=looks[family].colour, lw=1.4)
            if entropies:
                axis.add_patch(
                    Rectangle(
                        (x + 0.15, y), 0.7, 0.8 * entropies[i] / highest, color="#777777", lw=0
                    )
                )
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
