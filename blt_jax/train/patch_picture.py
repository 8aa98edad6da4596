"""The text that a BLT reads, as it reads it: the first bytes of a row, cut into patches."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from blt_jax.config import BYTE_OFFSET

LINES, PER_LINE = 8, 96  # bytes that are shown
COLOUR, SPECIAL = "#0072B2", "#999999"


def draw(ids_L: np.ndarray, patch_L: np.ndarray, segment_L: np.ndarray) -> Figure:
    """A matplotlib figure of one row: neighbouring patches differ in shade; grey: BOS, EOS."""
    shown = min(int((segment_L > 0).sum()), LINES * PER_LINE)
    lines = max(1, -(-shown // PER_LINE))
    figure = Figure(figsize=(11, 0.5 + 0.26 * lines), layout="constrained")
    axis = figure.subplots()
    axis.set(xlim=(-0.5, PER_LINE + 0.5), ylim=(-lines, 0.1))
    axis.axis("off")
    whole = int((np.diff(patch_L[:shown], prepend=-1) != 0).sum())
    axis.set_title(
        f"{shown} positions of a training row in {whole} patches", loc="left", fontsize=10
    )
    for i in range(shown):
        x, y = i % PER_LINE, -(i // PER_LINE)
        text = ids_L[i] >= BYTE_OFFSET
        shade = 0.34 if patch_L[i] % 2 else 0.12
        axis.add_patch(
            Rectangle((x, y - 0.9), 1, 0.8, color=COLOUR if text else SPECIAL, alpha=shade, lw=0)
        )
        if text:
            character = _visible(int(ids_L[i]) - BYTE_OFFSET)
            axis.text(
                x + 0.5,
                y - 0.52,
                character,
                ha="center",
                va="center",
                family="monospace",
                fontsize=7.5,
            )
        if not i or patch_L[i] != patch_L[i - 1]:
            axis.plot([x, x], [y - 0.92, y - 0.08], color=COLOUR, lw=1.2)
    return figure


def _visible(byte):
    """One visible character for a byte."""
    marks = {0x20: "\u00b7", 0x0A: "\u00b6"}
    return marks.get(byte) or (chr(byte) if 0x21 <= byte < 0x7F else "\u25a1")
