"""The referee of the formulas: matrix-product FLOPs of a program, counted in its jaxpr.

XLA's own count takes the body of a scan once, whatever its length; this one takes it `length`
times. The jaxpr is read by its attributes, so this file, like the rest of `flops`, imports no jax;
the caller brings the jitted function. Counting needs shapes only and no device.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from blt_jax.config import ConfigError

# Primitives that run one inner program once. `custom_jvp_call` and `custom_vjp_call` are seen only
# where nothing is differentiated; a gradient's jaxpr holds the custom rule's own equations instead.
CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)

# Primitives with work that no rule here knows, by a word of their name or by the whole name.
OPAQUE_WORDS = (
    "conv_general",
    "dot",
    "matmul",
    "attention",
    "call",
    "fft",
    "solve",
    "cholesky",
    "custom",
)
OPAQUE_NAMES = ("lu", "qr", "geqrf", "eig", "eigh", "svd", "schur", "householder_product")


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a program does; `flops` is a lower bound where `unknown` is not empty."""

    flops: int  # 2 x multiply-adds of every dot_general, over all devices
    largest: tuple[
        int, tuple[int, ...]
    ]  # elements and shape of the largest result of any equation, on one device
    unknown: tuple[str, ...]  # names of primitives whose work is not in `flops`, sorted


def count(function: Callable[..., Any], *args: Any) -> Counted:
    """Counts `function(*args)`. `function`: the result of jax.jit. `args`: trees of arrays or
    jax.ShapeDtypeStruct.

    A scan counts its length times, a cond as its costliest branch, a shard_map once for each device
    that it maps over, a recomputed (jax.checkpoint) part as often as it is computed. A while has no
    length: it is `unknown`, unless there is nothing to count in it. The arguments themselves are
    not in `largest`. Raises ConfigError when `function` is not jitted.
    """
    if not hasattr(function, "trace"):
        raise ConfigError(
            f"function = {function!r}: must be jitted, as in count(jax.jit(function), ...)"
        )
    return _program(function.trace(*args).jaxpr)


def _program(jaxpr):
    """Counted of a Jaxpr or ClosedJaxpr: the sum of its equations."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    flops, largest, unknown = 0, (0, ()), set()
    for equation in jaxpr.eqns:
        part = _equation(equation)
        results = [(math.prod(shape), tuple(shape)) for shape in map(_shape, equation.outvars)]
        flops += part.flops
        largest = max([largest, part.largest, *results])
        unknown |= set(part.unknown)
    return Counted(flops, largest, tuple(sorted(unknown)))


def _equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return Counted(_dot(equation), (0, ()), ())
    if name not in (*CALLS, "cond", "scan", "while", "shard_map"):
        if name in OPAQUE_NAMES or any(word in name for word in OPAQUE_WORDS):
            return Counted(0, (0, ()), (name,))
    inner = [_program(jaxpr) for jaxpr in _programs(params)]
    flops = [part.flops for part in inner]
    largest = max([(0, ()), *(part.largest for part in inner)])
    unknown = sorted({primitive for part in inner for primitive in part.unknown})
    if name == "cond":
        return Counted(max(flops), largest, tuple(unknown))
    times = {"scan": lambda: params["length"], "shard_map": lambda: _devices(params)}.get(
        name, lambda: 1
    )()
    if (sum(flops) or unknown) and name not in (
        *CALLS,
        "scan",
        "shard_map",
    ):  # a while, or a primitive new to us
        return Counted(0, largest, tuple(sorted({name, *unknown})))
    return Counted(sum(flops) * times, largest, tuple(unknown))


def _programs(params):
    """The jaxprs among the parameters of an equation, alone or in tuples."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _dot(equation):
    """2 x (product of the output's shape, batch included) x (product of the contracted sizes)."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)


def _devices(params):
    """Devices that a shard_map divides its arguments over: its inner shapes are those of one of
    them.
    """
    axes = params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"]
    return math.prod(params["mesh"].shape[axis] for axis in axes)


def _shape(variable):
    return getattr(variable.aval, "shape", ())
