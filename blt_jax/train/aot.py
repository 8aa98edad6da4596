"""The real training step, compiled ahead of time for devices that need not be there, and what the
program says.

Everything is abstract: no array is made, so the largest model fits the smallest machine. The
devices come from a TPU topology (`jax.experimental.topologies`, with libtpu's own compiler) or are
forced host devices.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from blt_jax import batch
from blt_jax.config import ConfigError
from blt_jax.parallel import sharding
from blt_jax.runs.config import Run
from blt_jax.train import optimizer
from blt_jax.train.step import abstract_state, make_step

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
)
_BITS = {"pred": 8, "bf16": 16}  # other types end with their bits: f32, s8, u64


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled step says of itself; bytes are of one device."""

    devices: int
    seconds: float  # lowering and compiling
    arguments: int  # bytes of state and batch; the new state takes the place of the old
    temporaries: int  # bytes that the step needs besides
    # bytes, the compiler's own figure; it may lie below arguments + temporaries. 0: not reported
    peak: int
    kernels: int  # calls of hand-written kernels (splash attention) in the program's text
    collectives: dict  # kind -> ops, times, bytes, largest (`collectives`)

    @property
    def needs(self) -> int:
        """Bytes, the careful reading: arguments and temporaries."""
        return self.arguments + self.temporaries


def arguments(
    run: Run, mesh: jax.sharding.Mesh, positions: int, slots: int = 0
) -> tuple[Any, batch.Batch, Any]:
    """(state, batch, schedule) of `make_step` as jax.ShapeDtypeStructs with shardings.

    `positions`: of a row, bytes or tokens; `slots`: patch slots of a row, for a BLT.
    """
    state = abstract_state(run, mesh)
    inputs = batch.abstract(
        run.model, run.train.rows, positions, slots, sharding.batch_sharding(mesh)
    )
    return state, inputs, optimizer.schedule(run.optimizer, run.train.steps)


def compile_step(run: Run, mesh: jax.sharding.Mesh, positions: int, slots: int = 0) -> Program:
    """Compiles `run`'s step for `mesh`. Raises ConfigError where the compiler finds that it does
    not fit.
    """
    began = time.monotonic()
    given, step = arguments(run, mesh, positions, slots), make_step(run, mesh)
    with sharding.context(mesh):
        lowered = step.lower(*given)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ConfigError(
                f"{run.name} does not fit {mesh.size} devices: {_exhausted(str(error))}"
            ) from None
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Program(
        devices=mesh.size,
        seconds=time.monotonic() - began,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=getattr(memory, "peak_memory_in_bytes", 0),
        kernels=text.count('custom_call_target="tpu_custom_call"'),
        collectives=collectives(text),
    )


def _exhausted(message):
    """The line that says how much is missing."""
    match = re.search(r"[^.\n]*(?:exceed|Used|Attempting)[^\n]*", message)
    return " ".join((match[0] if match else message.splitlines()[0]).split())[:300]


# ---------------------------------------------------------------- reading the program's text

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"= (.*?) ([a-z][\w-]*)\(")
_CALLED = re.compile(r"(body|calls|to_apply|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SOURCE = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")


@dataclasses.dataclass
class _Computation:
    # (kind, bytes, of its largest array, channel or None)
    collectives: list = dataclasses.field(default_factory=list)
    # (computation, how often; for a loop's body its condition)
    calls: list = dataclasses.field(default_factory=list)
    # whole numbers, which a loop's condition counts up to
    constants: list = dataclasses.field(default_factory=list)


def collectives(text: str) -> dict[str, dict[str, int]]:
    """{kind: counts} of an HLO module; those in loops as often as the loop runs. Counts: "ops", in
    the text; "times" run per step; "bytes" of their results, all times together; "largest", bytes
    of the largest single array among them.

    A collective that the compiler overlaps with other work is named in several pieces with one
    channel and one source: it counts once (those of `jax.shard_map` share a channel, but not their
    source). A loop runs as often as the compiler notes, else up to the one constant in its
    condition. A compiler may make its own of a collective, loops of permutes or an all-reduce for
    an all-gather: counted is what the text names.
    """
    inside, entry = _computations(text)
    runs: dict[Any, tuple[int, int]] = {}  # (kind, channel or place): (bytes, times)
    largest: dict[str, int] = {}  # kind: bytes

    def walk(name, times):
        computation = inside.get(name, _Computation())
        for place, (kind, size, array, channel) in enumerate(computation.collectives):
            key = (kind, channel or (name, place))
            largest[kind] = max(largest.get(kind, 0), array)
            most = max((size, times), runs.get(key, (0, 0)), key=lambda run: run[0] * run[1])
            runs[key] = most if channel else (size, times + runs.get(key, (0, 0))[1])
        for called, trips in computation.calls:
            if isinstance(trips, str):
                limits = set(inside[trips].constants) if trips in inside else ()
                trips = limits.pop() if len(limits) == 1 else 1
            walk(called, times * trips)

    walk(entry, 1)
    totals: dict[str, dict[str, int]] = {}
    for (kind, _), (size, times) in runs.items():
        empty = {"ops": 0, "times": 0, "bytes": 0, "largest": largest[kind]}
        total = totals.setdefault(kind, empty)
        total["ops"] += 1
        total["times"] += times
        total["bytes"] += times * size
    return totals


def _computations(text):
    """({name: _Computation}, the entry's name)."""
    inside, entry, computation = {}, None, _Computation()
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            computation = inside[header[2]] = _Computation()
            entry = header[2] if header[1] else entry
            continue
        constant = _CONSTANT.search(line)
        if constant:
            computation.constants.append(int(constant[1]))
        operation = _OPERATION.search(line)
        if not operation:
            continue
        kind = operation[2].removesuffix("-start")
        if kind in COLLECTIVES:
            channel, source = _CHANNEL.search(line), _SOURCE.search(line)
            sizes = _array_bytes(operation[1])
            # A started collective also carries its operands: the largest array is the result.
            size = max(sizes) if operation[2].endswith("-start") else sum(sizes)
            computation.collectives.append(
                (kind, size, max(sizes), channel and (channel[1], source and source[1]))
            )
        called = dict(_CALLED.findall(line))
        trips = _TRIPS.search(line)
        for role, name in called.items():
            if role == "body":
                computation.calls.append(
                    (name, int(trips[1]) if trips else called.get("condition", 1))
                )
            elif role != "to_apply" or kind == "call":  # else the sum of a reduction
                computation.calls.append((name, 1))
        for branches in _BRANCHES.findall(line):
            computation.calls.extend((name.strip().lstrip("%"), 1) for name in branches.split(","))
    return inside, entry


def _array_bytes(shape):
    """Bytes of each array of a result type."""
    sizes = [0]
    for kind, dimensions in _ARRAY.findall(shape):
        bits = _BITS.get(kind) or int(re.search(r"\d+$", kind)[0])
        sizes.append(math.prod(int(n) for n in dimensions.split(",") if n) * bits // 8)
    return sizes
