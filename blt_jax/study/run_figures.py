"""Pictures that need a study's run folders: patches, FLOPs per byte, training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from blt_jax.runs import run_files
from blt_jax.scaling.figures import PAPER, WIDTH, log_axis, outside, panels
from blt_jax.scaling.looks import Look
from blt_jax.scaling.number_format import brief, count
from blt_jax.study import results

LINES = {
    "encoder": "#56B4E9",
    "pooling": "#E69F00",
    "latent": "#0072B2",
    "decoder": "#009E73",
    "head": "#999999",
}
PER_LINE = 64  # bytes of sample text per line


@rc_context(PAPER)
def patch_lengths(headers: Mapping[str, dict], looks: Mapping[str, Look]) -> Figure:
    """Share of patches of each length, per patched family, of {family: header of its rows}."""
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
def flops_per_byte(
    points: Sequence[results.Point],
    looks: Mapping[str, Look],
    convention: str,
    entropy_model: dict[str, Any] | None,
) -> Figure:
    """Forward FLOPs per byte by part, a bar per family and size; hatched on top: the entropy model,
    as plan.json describes it.
    """
    first: dict[tuple[str, str], results.Point] = {}
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
def training(points: Sequence[results.Point], looks: Mapping[str, Look]) -> Figure:
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
    log_axis(axis, "x", count)
    log_axis(axis, "y", brief)
    axis.set(xlabel="text bytes read", ylabel="training bits per byte")
    outside(axis)
    return figure


@rc_context(PAPER)
def sample(
    text: Sequence[int],
    entropies: Sequence[float],
    families: Mapping[str, dict],
    looks: Mapping[str, Look],
) -> Figure:
    """Bytes of a sample cut into patches: per family, lines of boxed patches under bars of entropy.

    `entropies`: of each byte, nats, or none; `families`: {family: {label, threshold, starts}}.
    """
    lines = -(-len(text) // PER_LINE)
    figure = Figure(figsize=(11, 0.35 + len(families) * (0.4 + 0.62 * lines)), layout="constrained")
    axes = figure.subplots(len(families), 1, squeeze=False)[:, 0]
    highest = max(max(entropies, default=0), 1e-9)
    for axis, (family, patches) in zip(axes, families.items(), strict=True):
        axis.set(xlim=(-0.5, PER_LINE + 0.5), ylim=(-2.0 * lines + 0.1, 0.9))
        axis.axis("off")
        threshold = patches["threshold"]
        note = f", threshold {threshold:.2f} nats (dashed)" if threshold is not None else ""
        axis.set_title(
            f"{patches['label']}: {len(patches['starts'])} patches of {len(text)} bytes{note}",
            loc="left",
            fontsize=10,
        )
        patch = np.cumsum(np.isin(np.arange(len(text)), patches["starts"]))
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
            if i in patches["starts"]:
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


def _visible(byte: int) -> str:
    """One visible character for a byte."""
    if byte == 0x20:
        return "\u00b7"
    if byte == 0x0A:
        return "\u00b6"
    return chr(byte) if 0x21 <= byte < 0x7F else "\u25a1"
