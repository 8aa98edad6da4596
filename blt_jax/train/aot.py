"""The real training step, compiled ahead of time for devices that need not be there, and what the program says.

Everything is abstract: no array is made, so the largest model fits the smallest machine. The devices come from a
TPU topology (`jax.experimental.topologies`, with libtpu's own compiler) or are forced host devices.
"""

import dataclasses
import re
import time

import jax
import jax.numpy as jnp

from blt_jax import models
from blt_jax.config import Blt, ConfigError, Run
from blt_jax.parallel import rules
from blt_jax.train import optimizer
from blt_jax.train.step import make_step, state_shardings

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16}  # other types end with their bits: f32, s8, u64


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled step says of itself; bytes are of one device."""

    devices: int
    seconds: float  # lowering and compiling
    arguments: int  # bytes of state and batch; the new state takes the place of the old
    temporaries: int  # bytes that the step needs besides
    peak: int  # bytes, the compiler's own figure; it may lie below arguments + temporaries. 0: it tells none
    kernels: int  # calls of hand-written kernels (splash attention) in the program's text
    collectives: dict  # kind -> {"ops": in the text, "times": run per step, "bytes": of results, all times together}

    @property
    def needs(self):
        """Bytes, the careful reading: arguments and temporaries."""
        return self.arguments + self.temporaries


def arguments(run: Run, mesh, positions, slots=0):
    """(state, batch, schedule) of `make_step` as jax.ShapeDtypeStructs with shardings.

    `positions`: of a row, bytes or tokens; `slots`: patch slots of a row, for a BLT.
    """
    tx = optimizer.transform(run.optimizer)
    parameters = models.shapes(run.model)
    shapes = {"params": parameters, "moments": jax.eval_shape(tx.init, parameters)}
    shapes["step"] = jax.ShapeDtypeStruct((), jnp.int32)
    lay = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
    state = jax.tree.map(lay, shapes, state_shardings(run, mesh))
    row = lambda n, dtype=jnp.int32: jax.ShapeDtypeStruct(  # noqa: E731
        (run.train.rows, n), dtype, sharding=rules.batch_sharding(mesh)
    )
    batch = {key: row(positions) for key in ("ids_BxL", "targets_BxL", "segment_BxL", "bytes_BxL")}
    batch["loss_mask_BxL"] = row(positions, jnp.float32)
    if isinstance(run.model, Blt):
        batch |= {"patch_BxL": row(positions), "read_BxL": row(positions), "patch_segment_BxP": row(slots)}
    return state, batch, optimizer.schedule(run.optimizer, run.train.steps)


def compile_step(run: Run, mesh, positions, slots=0) -> Program:
    """Compiles `run`'s step for `mesh`. Raises ConfigError where the compiler finds that it does not fit."""
    began = time.monotonic()
    given = arguments(run, mesh, positions, slots)
    with rules.context(mesh):
        lowered = make_step(run, mesh).lower(*given)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ConfigError(f"{run.name} does not fit {mesh.size} devices: {_exhausted(str(error))}") from None
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
    found = re.search(r"[^.\n]*(?:exceed|Used|Attempting)[^\n]*", message)
    return " ".join((found[0] if found else message.splitlines()[0]).split())[:300]


# ---------------------------------------------------------------- reading the program's text

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"= (.*?) ([a-z][\w-]*)\(")
_CALLED = re.compile(r"(body|calls|to_apply|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")


def collectives(text):
    """Collectives of an HLO module by kind, those in loops as often as the loop runs.

    A compiler may make its own of them (TPU's does: loops of permutes, collectives inside custom calls); what is
    told is what the text names.
    """
    inside, entry = _computations(text)
    found = {}

    def walk(name, times):
        operations, calls = inside.get(name, ((), ()))
        for kind, size in operations:
            one = found.setdefault(kind, {"ops": 0, "times": 0, "bytes": 0})
            one["ops"] += 1
            one["times"] += times
            one["bytes"] += times * size
        for called, trips in calls:
            walk(called, times * trips)

    walk(entry, 1)
    return found


def _computations(text):
    """({computation: ([(kind, bytes)], [(computation that it calls, times)])}, the entry's name)."""
    inside, entry, operations, calls = {}, None, [], []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            operations, calls = inside[header[2]] = [], []
            entry = header[2] if header[1] else entry
            continue
        operation = _OPERATION.search(line)
        if not operation:
            continue
        kind = operation[2].removesuffix("-start")
        if kind in COLLECTIVES:
            operations.append((kind, _result_bytes(operation[1], operation[2].endswith("-start"))))
        trips = _TRIPS.search(line)
        for how, called in _CALLED.findall(line):
            if how != "to_apply" or kind == "call":  # else the sum of a reduction
                calls.append((called, int(trips[1]) if trips and how == "body" else 1))
        for branches in _BRANCHES.findall(line):
            calls.extend((name.strip().lstrip("%"), 1) for name in branches.split(","))
    return inside, entry


def _result_bytes(shape, started):
    """Bytes of a result type. A started collective also carries its operands: the largest array is the result."""
    sizes = []
    for kind, dimensions in _ARRAY.findall(shape):
        bits = _BITS.get(kind) or int(re.search(r"\d+$", kind)[0])
        count = 1
        for dimension in filter(None, dimensions.split(",")):
            count *= int(dimension)
        sizes.append(count * bits // 8)
    return max(sizes, default=0) if started else sum(sizes)
