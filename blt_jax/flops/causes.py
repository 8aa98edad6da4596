"""Why the conventions differ: "executed" less "exact" or "paper", line by line, each part with its
cause.

Each part is derived from the config on its own, not as what is left over, so that their sum, which
a test holds to the whole difference, says that nothing goes unexplained. Only the last three, which
are about the backward pass, are differences of counts that the tracer has checked.
"""

import dataclasses
import math

from blt_jax.config import Blt, ConfigError, Lm, Stack
from blt_jax.flops.analytic import (
    ATTENTIONS,
    Breakdown,
    _applications,
    _cross_keys,
    _Executed,
    executed_row,
    per_byte,
)

CAUSES = {
    # "paper" -> "exact"
    "window": "a window costs its true mean reach, not the (m + 1) / 2 of a context of its length",
    "feed-forward": "the real hidden width, which is rounded up, not 8/3 of the width",
    "grouped keys": "fewer key and value heads than query heads",
    "byte vocabulary": "a head over 260 ids, not 256",
    "cross layers": "cross-attention only at the layers that have it, not at every local layer",
    "cross reach": "a patch reads all of its bytes and a byte all of its slots; no causal average over them",
    "projections": "bytes -> query slots, slots -> latent width, latent width -> bytes",
    # "exact" -> "executed", forward
    "whole units": "a row has a whole number of patch slots (rounded up) or tokens (rounded)",
    "masked pairs": "attention works in blocks: pairs that the mask removes, and the filled-up last block",
    "elementwise": "slots weigh the values of bytes by elementwise products, which are no matrix product",
    # and of a training step
    "scores again": "blockwise attention makes its scores again in the backward pass",
    "head again": "a head too large for memory works in parts, which the backward pass makes again",
    "recomputation": "remat runs the forward pass of scanned layers again, but for its last product",
}


def differences(
    model,
    *,
    patch_size,
    context_bytes,
    convention="exact",
    training=False,
    remat="none",
    attention=ATTENTIONS[0],
) -> dict[str, Breakdown]:
    """FLOPs per byte, "executed" less `convention` ("exact" or "paper"), for each of `CAUSES` that
    has a part in it.

    The sum over causes of each line is the whole difference. `training`: of a training step, for
    which the other conventions take 3 x forward; `remat` and `attention` as in `executed_row`, the
    rest as in `per_byte`. Raises ConfigError as these do, and for another `convention`.
    """
    if convention not in ("paper", "exact"):
        raise ConfigError(f"convention = {convention!r}: differences are told from paper or exact")
    forward = dict(patch_size=patch_size, context_bytes=context_bytes, convention="exact")
    exact = per_byte(model, **forward)
    byte_lm = isinstance(model, Lm) and model.unit == "byte"
    units = round(context_bytes / (1 if byte_lm else patch_size), 9)  # as in `per_byte`
    length = round(units) if isinstance(model, Lm) and model.unit == "token" else context_bytes
    slots = math.ceil(units)
    whole = per_byte(
        model,
        **forward | {"patch_size": context_bytes / (slots if isinstance(model, Blt) else length)},
    )

    parts = [("whole units", line, getattr(whole, line) - value) for line, value in _lines(exact)]
    parts += _program(model, length, slots, context_bytes, attention)
    if convention == "paper":
        parts += _formulas(model, 1.0 if byte_lm else patch_size, context_bytes)
    parts = [(cause, line, value * (3 if training else 1)) for cause, line, value in parts]

    if training:
        row = lambda **how: executed_row(model, length, slots, attention=attention, **how)
        once, step, repeated = row(), row(training=True), row(training=True, remat=remat)
        for line, value in _lines(step):
            again = "head again" if line == "head" else "scores again"
            parts.append((again, line, (value - 3 * getattr(once, line)) / context_bytes))
            parts.append(("recomputation", line, (getattr(repeated, line) - value) / context_bytes))
    return _by_cause(parts)


def _lines(breakdown):
    return [(field.name, getattr(breakdown, field.name)) for field in dataclasses.fields(breakdown)]


def _by_cause(parts):
    found = {}
    for cause, line, value in parts:
        if value:
            of_cause = found.setdefault(cause, {})
            of_cause[line] = of_cause.get(line, 0.0) + value
    return {cause: Breakdown(**found[cause]) for cause in CAUSES if cause in found}


def _stacks(model, length, slots):
    """(line, stack, positions that it runs over) of each stack."""
    if isinstance(model, Lm):
        return [("latent", model.stack, length)]
    return [
        ("encoder", model.encoder, length),
        ("latent", model.latent, slots),
        ("decoder", model.decoder, length),
    ]


def _program(model, length, slots, context_bytes, attention):
    """ "exact" -> "executed", forward."""
    row = _Executed(length, slots, False, False, attention)
    for line, s, n in _stacks(model, length, slots):
        pairs = row.blockwise(s.window, n) if attention == "blockwise" else row.banded(s.window, n)
        yield (
            "masked pairs",
            line,
            4 * s.layers * s.width * (pairs - n * _reach(s, n)) / context_bytes,
        )
    if isinstance(model, Blt) and model.encoder_cross != "none":
        times = _applications(model.encoder_cross, model.encoder)
        yield "elementwise", "pooling", -2 * times * model.slots * model.encoder.width


def _reach(s: Stack, length):
    """Mean number of keys that a causal query sees."""
    window = min(s.window or length, length)
    return (window * (window + 1) / 2 + (length - window) * window) / length


def _formulas(model, p, context):
    """ "paper" -> "exact", forward, per byte."""
    for line, s, _ in _stacks(model, context, context):
        unit = p if isinstance(model, Lm) or line == "latent" else 1.0
        length = context / unit
        grouped = 4 * s.width**2 * (s.kv_heads / s.heads - 1)
        if s.window:
            yield (
                "window",
                line,
                4 * s.layers * s.width * (_reach(s, length) - (s.window + 1) / 2) / unit,
            )
        yield "feed-forward", line, s.layers * s.width * (6 * s.ffn - 16 * s.width) / unit
        yield "grouped keys", line, s.layers * grouped / unit
    if isinstance(model, Lm):
        if model.unit == "byte":
            yield "byte vocabulary", "head", 2 * model.stack.width * 4
        return

    E, D, K = model.encoder.width, model.latent.width, model.slots
    fewer = _cross_keys(model) - E
    yield "byte vocabulary", "head", 2 * E * 4
    if model.encoder_cross != "none":
        times = _applications(model.encoder_cross, model.encoder)
        paper_reach, per_layer = 2 * E * K * (p + 1) / p, 4 * E * E + 4 * K * E * E / p
        yield "cross layers", "pooling", (times - model.encoder.layers) * (paper_reach + per_layer)
        yield "cross reach", "pooling", times * (4 * K * E - paper_reach)
        yield "grouped keys", "pooling", times * 4 * E * fewer
        yield "projections", "pooling", 2 * K * E * E / p
    if model.decoder_cross != "none":
        times = _applications(model.decoder_cross, model.decoder)
        paper_reach, per_layer = 2 * E * (K + 1), 4 * E * E + 4 * K * E * E / p
        yield "cross layers", "decoder", (times - model.decoder.layers) * (paper_reach + per_layer)
        yield "cross reach", "decoder", times * (4 * K * E - paper_reach)
        yield "grouped keys", "decoder", times * 4 * K * E * fewer / p
    if model.slots_width != D:
        yield "projections", "latent", 2 * model.slots_width * D / p
    yield "projections", "decoder", 2 * D * E * (K if model.decoder_cross != "none" else 1) / p
