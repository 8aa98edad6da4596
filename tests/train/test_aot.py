"""What a compiled program says: collectives by kind with their loops, memory; and the model of
memory against it.
"""

import dataclasses
import math

import jax
import pytest

from blt_jax.config import Mesh, Optimizer, Stack, Train
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import memory
from blt_jax.nn.attention import backend_of
from blt_jax.parallel.mesh import make_mesh
from blt_jax.patching import Patching
from blt_jax.runs.config import Run
from blt_jax.study import forecast
from blt_jax.train import aot
from blt_jax.train.step import state_shardings

HLO = """HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%inner (p: (s32[], bf16[4,16])) -> (s32[], bf16[4,16]) {
  %all-gather.1 = bf16[4,16]{1,0:T(8,128)(2,1)} all-gather(%x), dimensions={0}, backend_config={"k":"v"}
  ROOT %t = (s32[], bf16[4,16]{1,0}) tuple(%i, %all-gather.1)
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %while.2 = (s32[]) while(%init), condition=%up_to_5, body=%inner
  %fusion = f32[8]{0} fusion(%y), kind=kLoop, calls=%fused
}

%up_to_5 (p: (s32[], bf16[4,16])) -> pred[] {
  %constant.4 = s32[]{:T(128)} constant(5)
  ROOT %lt.1 = pred[] compare(%i, %constant.4), direction=LT
}

%test (p: (s32[], f32[8])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%fused (q: f32[8]) -> f32[8] {
  %all-reduce.9 = f32[8]{0} all-reduce(%q), channel_id=7, replica_groups={{0,1}}, to_apply=%sum
}

ENTRY %main (arg: f32[8]) -> f32[8] {
  %while.1 = (s32[]) while(%start), condition=%test, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
  %all-reduce.10 = f32[8]{0} all-reduce(%q), channel_id=7, replica_groups={{0,1}}, to_apply=%sum
  %reduce-scatter-start = (f32[8]{0}, f32[2]{0}) reduce-scatter-start(%z), to_apply=%sum
  %all-reduce.8 = (f32[8]{0}, u8[3]{0}) all-reduce(%a, %b), to_apply=%sum
}
"""


def test_collectives_are_counted_with_their_loops():
    assert aot.collectives(HLO) == {
        "all-gather": {"ops": 1, "times": 15, "bytes": 15 * 4 * 16 * 2, "largest": 128},
        "all-reduce": {"ops": 2, "times": 3 + 1, "bytes": 3 * 32 + 32 + 3, "largest": 32},
        "reduce-scatter": {"ops": 1, "times": 1, "bytes": 32, "largest": 32},
    }


LOCAL = Stack(1, 64, 4, window=64)
MODELS = {  # model, positions, slots
    "lm": (Lm(Stack(4, 128, 4), vocab=2048, unit="token"), 512, 0),
    "blt": (
        Blt(LOCAL, Stack(3, 128, 4), dataclasses.replace(LOCAL, layers=2), hash_rows=2048),
        1024,
        256,
    ),
}
FACTOR = 2.0  # the model of memory is that near to what the CPU's compiler says, either way


def run_of(model, **train):
    patched = isinstance(model, Blt)
    paths = dict(store="", index="", validation_index="", tokenizer="" if patched else "t")
    kind = dict(
        patching=Patching() if patched else None, optimizer=Optimizer(), train=Train(**train)
    )
    return Run(name="x", family="x", size="x", model=model, **paths, **kind)


@pytest.mark.parametrize(
    "name, remat",
    [("lm", "none"), ("lm", "full"), pytest.param("blt", "full", marks=pytest.mark.slow)],
)
def test_memory_is_near_a_compiled_step(name, remat):
    model, positions, slots = MODELS[name]
    run = run_of(
        model, rows=4, remat=remat, dtype="float32", device_rows=2 if remat == "full" else 0
    )
    program = aot.compile_step(run, make_mesh(Mesh(), jax.devices()[:1]), positions, slots)
    ours = memory.per_device(
        model, run.train, (1, 1, 1), positions=positions, slots=slots, attention=backend_of("cpu")
    )
    print(
        f"\n{name}, remat {remat}: model {ours.total / 2**20:.1f} MiB, compiler "
        f"{program.needs / 2**20:.1f} MiB"
    )
    batch = run.train.rows * 4 * (positions * (7 if slots else 5) + slots)
    state = 3 * 4 * sum(math.prod(x.shape) for x in jax.tree.leaves(network.shapes(model)))
    assert program.arguments == pytest.approx(state + batch, rel=0.01)
    assert ours.parameters + ours.moments + ours.table_moments == pytest.approx(state, rel=0.001)
    assert 1 / FACTOR < ours.total / program.needs < FACTOR
    assert program.devices == 1 and program.kernels == 0 and not program.collectives


@pytest.mark.parametrize(
    "mesh", [(1, 8, 1), (2, 4, 1), (1, 4, 2), (1, 3, 1), (5, 4, 2), (1, 96, 1)]
)
@pytest.mark.parametrize("name", ["lm", "blt"])
def test_state_is_split_as_the_rules_split_it(name, mesh):
    """Exact but for what is too small to split, on meshes that divide the widths and on some that
    do not.
    """
    model = MODELS[name][0]
    run = run_of(model)
    devices = jax.sharding.AbstractMesh(
        mesh, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3
    )
    layout = jax.tree.leaves(state_shardings(run, devices)["params"])
    shapes = jax.tree.leaves(network.shapes(model))
    exact = 4 * sum(math.prod(s.shard_shape(x.shape)) for s, x in zip(layout, shapes, strict=True))
    ours = memory.per_device(model, run.train, mesh, positions=8, slots=2).parameters
    assert ours == pytest.approx(exact, rel=0.03)


def test_forecast_mirrors_what_it_cannot_import():
    assert {name: backend_of(name) for name in forecast.ATTENTION} == forecast.ATTENTION
