"""Solvers that make models comparable: equal training FLOPs, or equal inference FLOPs per byte.

`budget_run`: the bytes and steps that a training budget buys. `shape_for_cost`: the width and depth
at which a model costs so much per byte. `patch_for_cost`: the patch size at which it does. All take
a FLOP convention by name, return what is left of the mismatch, and refuse one above `tolerance`
with the nearest that they found.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from blt_jax.config import ConfigError, Stack
from blt_jax.flops.analytic import per_byte, training

TOLERANCE = 0.005  # largest mismatch that counts as a match
# (step of widths, channels per head), the first that holds a match
GRIDS = ((256, 128), (128, 128), (64, 64))
# latent width: layers (BLT paper, Table 10)
PUBLISHED = {1280: 24, 2048: 25, 2560: 26, 3072: 36, 4096: 32}
# Factor by which width / layers may depart from that of the published shapes: wanted, at most.
SLACKS = (1.2, 1.5)


@dataclasses.dataclass(frozen=True)
class Match:
    bytes: float  # text bytes of all steps
    steps: int
    flops: float  # training FLOPs of those bytes
    mismatch: float  # flops / budget - 1, from rounding to whole steps


@dataclasses.dataclass(frozen=True)
class Shape:
    model: Any  # a model config
    patch_size: float  # bytes per patch, or per token
    flops_per_byte: float  # forward, with the entropy model where one was given
    mismatch: float  # flops_per_byte / cost - 1


def budget_run(
    model: Any,
    *,
    budget: float,
    bytes_per_unit: float,
    context_bytes: float,
    convention: str,
    bytes_per_step: float,
    tolerance: float = TOLERANCE,
) -> Match:
    """Match of `budget` training FLOPs (3 x forward) in `convention`. `bytes_per_unit`: bytes per
    patch or token.

    Raises ConfigError when the budget does not buy one step, or when whole steps miss it by more
    than `tolerance` (never from 100 steps on, at the default); math.inf takes what rounding leaves.
    """
    _positive("budget", budget, "FLOPs")
    forward = per_byte(
        model, patch_size=bytes_per_unit, context_bytes=context_bytes, convention=convention
    ).total
    per_step = training(forward) * bytes_per_step
    steps = round(budget / per_step)
    mend = "raise budgets, or lower train.rows or data.row_bytes"
    if steps < 1:
        raise ConfigError(
            f"budget {budget:.3g} is too small for one step, which costs {per_step:.3g} FLOPs; "
            f"{mend}"
        )
    match = Match(steps * bytes_per_step, steps, steps * per_step, steps * per_step / budget - 1)
    if abs(match.mismatch) > tolerance:
        raise ConfigError(
            f"budget {budget:.3g}: whole steps of {per_step:.3g} FLOPs miss it by more than "
            f"{tolerance:.2%}; nearest {steps} steps, {match.mismatch:+.2%}; {mend}"
        )
    return match


def inference_cost(
    model: Any,
    *,
    patch_size: float,
    context_bytes: float,
    convention: str,
    entropy_model: Any = None,
) -> float:
    """Forward FLOPs per byte, with those of `entropy_model` (an Lm over bytes; None: left out)."""
    models = [model] if entropy_model is None else [model, entropy_model]
    return sum(
        per_byte(
            part, patch_size=patch_size, context_bytes=context_bytes, convention=convention
        ).total
        for part in models
    )


def shape_for_cost(
    model: Any,
    *,
    cost: float,
    patch_size: float,
    context_bytes: float,
    convention: str,
    entropy_model: Any = None,
    tolerance: float = TOLERANCE,
) -> Shape:
    """`model` with the width and depth of its latent model (of an Lm: its only stack) solved for
    `cost`.

    `cost`: forward FLOPs per byte, as `inference_cost` counts them; `patch_size`: bytes per patch
    or token. All else stays: local models, slots, vocabulary, grouping of keys. Layers are whole,
    widths are multiples of 256 with heads of 128 channels (of 128, or of 64 with heads of 64, where
    that finds no match), the feed-forward is 8/3 of the width, rounded as in `Stack`. Of the shapes
    that match, the one whose width / layers is nearest to that of the published shapes (Table 10)
    at its width, and within a factor of `SLACKS`. Raises ConfigError with the nearest shape when
    none matches, or when the rest alone costs more.
    """
    _positive("cost", cost, "FLOPs per byte")

    def at(stack):
        shaped = dataclasses.replace(model, **{model.backbone: stack})
        flops = inference_cost(
            shaped,
            patch_size=patch_size,
            context_bytes=context_bytes,
            convention=convention,
            entropy_model=entropy_model,
        )
        return Shape(shaped, float(patch_size), flops, flops / cost - 1)

    template = getattr(model, model.backbone)
    tried = []
    for slack, grid in itertools.product(SLACKS, GRIDS):
        usual = [
            stack for stack in _stacks(template, *grid, cost, at) if _strangeness(stack) <= slack
        ]
        shapes = [at(stack) for stack in sorted(usual, key=_strangeness)]
        matching = [shape for shape in shapes if abs(shape.mismatch) <= tolerance]
        if matching:
            return matching[0]
        tried += shapes
    what = f"cost = {cost:.4g} FLOPs per byte ({convention}) at {patch_size} bytes per patch"
    if not tried:
        step, head_width = GRIDS[-1]
        least = at(_stack(template, step, 1, head_width)).flops_per_byte
        raise ConfigError(
            f"{what}: no shape of usual proportions is that cheap; the smallest, with everything "
            f"else, costs {least:.4g}; raise the cost or make the local models (or the entropy "
            "model) smaller"
        )
    near = min(tried, key=lambda shape: abs(shape.mismatch))
    stack = getattr(near.model, model.backbone)
    raise ConfigError(
        f"{what}: no whole shape is within {tolerance:.2%}; nearest {stack.layers} layers of "
        f"width {stack.width}, {near.mismatch:+.2%}; change the patch size or the local models, "
        "or allow more"
    )


def patch_for_cost(
    model: Any,
    *,
    cost: float,
    context_bytes: float,
    convention: str,
    entropy_model: Any = None,
    tolerance: float = TOLERANCE,
) -> Shape:
    """The patch size (of a token Lm: bytes per token) at which `model` costs `cost` forward FLOPs
    per byte.

    Longer patches are cheaper, so there is one answer, between 1 byte and the row; in "executed",
    where a row has a whole number of slots, the nearest. Raises ConfigError for a byte LM, which
    has no patches, and with the range of costs when no patch size reaches `cost`.
    """
    _positive("cost", cost, "FLOPs per byte")
    if model.unit == "byte":
        raise ConfigError(
            "model: a byte LM has no patches; its cost per byte cannot be changed by their size"
        )

    def at(size):
        options = dict(
            context_bytes=context_bytes, convention=convention, entropy_model=entropy_model
        )
        flops = inference_cost(model, patch_size=size, **options)
        return Shape(model, size, flops, flops / cost - 1)

    short, long = 1.0, float(context_bytes)
    for _ in range(64):  # halves the bracket in log size until the two ends are neighbours
        middle = math.sqrt(short * long)
        short, long = (middle, long) if at(middle).flops_per_byte > cost else (short, middle)
    best = min(at(short), at(long), key=lambda shape: abs(shape.mismatch))
    if abs(best.mismatch) > tolerance:
        most, least = at(1.0).flops_per_byte, at(float(context_bytes)).flops_per_byte
        raise ConfigError(
            f"cost = {cost:.4g} FLOPs per byte ({convention}): no patch size is within "
            f"{tolerance:.2%}; 1 to {context_bytes} bytes per patch cost {most:.4g} to "
            f"{least:.4g}, nearest {best.patch_size:.4g} at {best.mismatch:+.2%}; change the "
            "model or the cost"
        )
    return best


def _positive(name, value, unit):
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{name} = {value!r}: must be a positive number of {unit}")


def _stack(template: Stack, width, layers, head_width):
    heads = width // head_width
    kv_heads = max(1, heads * template.kv_heads // template.heads)
    return dataclasses.replace(
        template, width=width, layers=layers, heads=heads, kv_heads=kv_heads, ffn=0
    )


def _stacks(template: Stack, step, head_width, cost, at):
    """One Stack per width: as many layers as come nearest to `cost`, for cost is linear in
    layers.
    """
    step = math.lcm(step, head_width * template.heads // template.kv_heads)  # whole groups of heads
    for width in itertools.count(step, step):
        one_layer, two_layers = (
            at(_stack(template, width, layers, head_width)).flops_per_byte for layers in (1, 2)
        )
        layers = 1 + round((cost - one_layer) / (two_layers - one_layer))
        if layers < 1:
            return
        yield _stack(template, width, layers, head_width)


def _strangeness(stack: Stack):
    """Factor between width / layers and that of the published shapes at this width, or at the end
    nearest to it.
    """
    widths, layers = np.log(list(PUBLISHED)), np.log(list(PUBLISHED.values()))
    usual = np.interp(math.log(stack.width), widths, widths - layers)
    return math.exp(abs(math.log(stack.width / stack.layers) - usual))
