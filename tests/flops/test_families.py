"""The referee on every family at its published shapes: `executed` equals the trace to the unit, 8B
included.

Nothing is computed: programs are traced from shapes. Rows hold 8,192 bytes (16,384 at 8B). `pytest
-n0 -s` prints the figures, with what tells them from "exact" and "paper".
"""

import dataclasses
import math

import pytest

from blt_jax.config import Stack
from blt_jax.families import preset
from blt_jax.families.lm.config import Lm
from blt_jax.flops import differences, executed_row, per_byte, trace, training
from tests.flops.programs import B, forward, shapes, with_gradient

pytestmark = pytest.mark.slow


def spacebyte(size):
    return dataclasses.replace(
        preset(f"blt-{size}"), encoder_cross="none", decoder_cross="none", hash_sizes=()
    )


FLAT = Lm(Stack(24, 1280, 10))
RUNS = {  # model, bytes per patch or token, bytes per row
    "blt-entropy 400m": (preset("blt-400m"), 4.5, 8192),
    "blt-entropy 8b": (preset("blt-8b"), 4.5, 16384),
    "blt-space 1b": (preset("blt-1b"), 6.1, 8192),
    "spacebyte 400m": (spacebyte("400m"), 6.1, 8192),
    "spacebyte 8b": (spacebyte("8b"), 6.1, 16384),
    "megabyte++ 2b": (preset("blt-2b"), 4.0, 8192),
    "flat bytes": (FLAT, 1.0, 8192),
    "flat bytes, window": (
        dataclasses.replace(FLAT, stack=Stack(12, 1024, 16, kv_heads=4, window=512)),
        1.0,
        8192,
    ),
    "llama2 400m": (preset("llama2-400m"), 3.7, 8192),
    "llama3 1b": (preset("llama3-1b"), 4.4, 8192),
    "llama3 8b": (preset("llama3-8b"), 4.4, 16384),
    "entropy model": (preset("entropy-100m"), 1.0, 8192),
}


def row(model, unit, context):
    """Positions and patch slots of a row, as `per_byte` has them."""
    if isinstance(model, Lm):
        return round(context / (unit if model.unit == "token" else 1)), 0
    return context, math.ceil(context / unit)


BANDED = (
    "blt-entropy 400m",
    "flat bytes, window",
    "llama3 1b",
)  # small models show every flag with both backends


@pytest.mark.parametrize(
    "name, how", [(n, {}) for n in RUNS] + [(n, {"attention": "banded"}) for n in BANDED]
)
def test_executed_equals_the_trace(name, how):
    model, unit, context = RUNS[name]
    positions, slots = row(model, unit, context)
    given = shapes(model, positions, slots)
    for program, remat in ((forward, "none"), (with_gradient, "none"), (with_gradient, "full")):
        found = trace.count(program(model, remat=remat, **how), *given)
        expected = executed_row(
            model, positions, slots, training=program is with_gradient, remat=remat, **how
        )
        assert not found.unknown and found.flops == B * expected.total, (program.__name__, remat)


@pytest.mark.parametrize("name", RUNS)
def test_the_breakdown_names_every_difference(name):
    model, unit, context = RUNS[name]
    positions, slots = row(model, unit, context)
    where = dict(patch_size=unit, context_bytes=context)
    once = executed_row(model, positions, slots).total / context
    step = executed_row(model, positions, slots, training=True, remat="full").total / context
    print(
        f"\n{name}, {unit} bytes per patch or token: executed {once:.4g} FLOPs/byte, training "
        f"with remat {step:.4g}"
    )
    for convention in ("exact", "paper"):
        theirs = per_byte(model, convention=convention, **where).total
        causes = differences(model, convention=convention, **where)
        trained = differences(model, convention=convention, training=True, remat="full", **where)
        assert sum(part.total for part in causes.values()) == pytest.approx(
            once - theirs, abs=1e-9 * once
        )
        assert sum(part.total for part in trained.values()) == pytest.approx(
            step - training(theirs), abs=1e-9 * step
        )
        print(
            f"  {convention:5} {theirs:.4g}: "
            + ", ".join(f"{k} {v.total / theirs:+.2%}" for k, v in causes.items())
        )
