"""A picture of the FLOPs of each new byte, by the cost model: local models, and the latent model
where it ran.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from blt_jax.families import Model
from blt_jax.flops import per_byte

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    config: Model, patcher: Model | None, context: int, data: bytes, closed: Sequence[bool]
) -> "Figure":
    """`data`: new bytes; `closed`: whether each completed a patch; `patcher`: the entropy model;
    `context`: bytes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def cost(model: Model, patch_size: float) -> float:
        return per_byte(
            model, patch_size=patch_size, context_bytes=context, convention="exact"
        ).total

    by_patch = 2 * (cost(config, 1) - cost(config, 2))
    by_byte = cost(config, 1) - by_patch
    entropy = cost(patcher, 1) if patcher is not None else 0.0
    at, latent = range(len(data)), [by_patch if completes else 0.0 for completes in closed]
    figure, axes = pyplot.subplots(
        figsize=(max(6, min(40, 0.14 * len(at) + 2)), 3.2), layout="constrained"
    )
    bottom = 0.0
    for height, colour, label in (
        (entropy, "0.8", "entropy model"),
        (by_byte, "tab:blue", "encoder, decoder, head"),
    ):
        if height:
            axes.bar(at, height, 1.0, bottom, color=colour, label=label)
            bottom += height
    axes.bar(at, latent, 1.0, bottom, color="tab:orange", label="patch: pooling, latent model")
    if len(at) <= 260:
        shown = [
            chr(byte) if 0x20 < byte < 0x7F else "\u2423" if byte == 0x20 else "\u00b7"
            for byte in data
        ]
        axes.set_xticks(list(at), shown, fontsize=7, family="monospace")
    mean = bottom + sum(latent) / max(1, len(latent))
    axes.axhline(mean, color="black", linewidth=0.8, linestyle="--", label=f"mean {mean:.3g}")
    axes.set(
        xlabel="new bytes (\u2423 space, \u00b7 other)",
        ylabel="FLOPs, exact",
        xlim=(-0.5, max(len(at), 1) - 0.5),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.22), ncols=4, fontsize=8, frameon=False)
    return figure
