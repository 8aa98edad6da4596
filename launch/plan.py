"""Print a study's runs: what each is, costs and needs. No device, data or tokenizer: an 8B grid
takes seconds.

    python -m launch.plan --config=experiments/quickstart.py
    python -m launch.plan --config=experiments/compute_optimal.py --hardware=h100 --devices=256 \\
        --mfu=0.4 --details
    python -m launch.plan --config=experiments/compute_optimal.py --runs='*-8b-*' \\
        --compile=v5p:4x4x4 --json=plan.json

FLOPs per byte are forward, `total FLOPs` those of training (3 x forward), both in the study's
convention. Mesh: data x fsdp x tensor. Memory is a model of it (`flops/memory.py`); `at least`: the
fewest devices, a power of two, that hold the run with a tenth of their memory to spare. Hours:
training FLOPs in `exact` / (devices x dense bfloat16 peak x MFU). Before a study has measured its
patches and tokens, the plan stands on assumed sizes and says which; `--workdir=STUDY` takes the
measured ones of a study's folder.

`--compile=TOPOLOGY` lowers and compiles the real training step of each distinct program among the
runs, for a TPU slice, on this machine, and reads memory and collectives from the result; minutes
and about 2 GiB each. It needs libtpu (`pip install -e '.[tpu]'`); without it the step is compiled
for as many forced host devices: shardings, bytes of state and collectives are then real, bytes of
temporaries are not a TPU's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from blt_jax.config import ConfigError
from blt_jax.flops import hardware
from blt_jax.parallel import topology as slices
from blt_jax.record import build, to_dict
from blt_jax.study import forecast, grid, plan_tables, planning
from blt_jax.study.config import Study
from blt_jax.study.grid import PlannedRun
from launch import flags as launch_flags


def _print(*listings: plan_tables.Listing) -> None:
    for listing in listings:
        width = None if Console().is_terminal else max(160, listing.width)
        Console(width=width).print(listing.table())


def show(
    planned: Sequence[PlannedRun],
    forecasts: Sequence[plan_tables.Forecast] = (),
    details: bool = False,
) -> None:
    """Prints the table of planned runs; with `forecasts` (one of each) what they ask of the
    machine, with `details` their parts.
    """
    _print(plan_tables.runs(planned, forecasts))
    if details:
        _print(*plan_tables.parts(planned, forecasts))


def show_sources(planned: Sequence[PlannedRun]) -> None:
    """Prints what share of its text each source is, and how often it is read, where measured."""
    listing = plan_tables.sources(planned)
    if listing:
        _print(listing)


def compile_all(planned: Sequence[PlannedRun], topology: slices.Topology) -> dict[str, Any]:
    """Compiles and prints one program after the other. Returns their JSON values by run name."""
    devices, real = slices.devices(topology)
    if not real:
        print(
            f"libtpu is not installed: compiling for {topology.devices} forced host devices, not "
            f"{topology.name}. Arguments and collectives are those of the mesh; temporaries are "
            "not a TPU's. pip install -e '.[tpu]'"
        )
    distinct = forecast.programs(planned)
    print(f"compiling {len(distinct)} distinct steps for {topology.name}: minutes each", flush=True)
    records: dict[str, Any] = {}
    for run in distinct:
        try:
            program = forecast.compile_step(run, devices)
        except ConfigError as error:
            print(f"{run.name}: {error}", flush=True)
            records[run.name] = {"error": str(error)}
            continue
        records[run.name] = forecast.compiled_record(program, topology.name, real)
        _print(*plan_tables.program(run.name, program, topology, real))
    return records


def main(_: list[str]) -> int:
    study = build(Study, CONFIG.value.to_dict())
    topology = slices.parse(COMPILE.value) if COMPILE.value else None
    facts = (
        planning.measured_facts(study, WORKDIR.value)
        if WORKDIR.value
        else grid.assumed_facts(study)
    )
    planned = grid.select(grid.plan(study, facts), RUNS.value)

    forecasts: list[plan_tables.Forecast] = []
    if HARDWARE.value or topology:
        if HARDWARE.value or not topology:
            device = hardware.by_name(HARDWARE.value)
        else:
            device = topology.hardware
        count = DEVICES.value or (topology.devices if topology else 1)
        machine = forecast.Machine(device, count, MFU.value)
        forecasts = [
            forecast.forecast(run, machine)
            | {"fewest_devices": forecast.fewest_devices(run, machine)}
            for run in planned
        ]
        print(
            f"{count} x {device.name} at {MFU.value:.0%} of {device.peaks['bfloat16']:.4g} FLOP/s "
            "(dense bfloat16)"
        )
    show(planned, forecasts, DETAILS.value)
    programs = compile_all(planned, topology) if topology else {}

    if JSON.value:
        runs = [
            {"name": run.name, "cost": run.cost, "config": to_dict(run.run)}
            | ({"forecast": ahead} if ahead else {})
            | ({"compiled": programs[run.name]} if run.name in programs else {})
            for run, ahead in zip(planned, forecasts or [{}] * len(planned), strict=True)
        ]
        Path(JSON.value).write_text(json.dumps(runs, indent=1))
    return 0


if __name__ == "__main__":
    CONFIG = launch_flags.define_config()
    JSON = flags.DEFINE_string("json", "", "Also write the plan here, as JSON.")
    RUNS = flags.DEFINE_string("runs", "*", "Only runs whose names match this glob, e.g. '*-8b-*'.")
    DETAILS = flags.DEFINE_boolean(
        "details", False, "Also print parameters, FLOPs and memory by part."
    )
    WORKDIR = flags.DEFINE_string(
        "workdir", "", "A study's folder, whose measured patch and token sizes to use."
    )
    HARDWARE = flags.DEFINE_string(
        "hardware", "", "What to forecast memory and hours for, e.g. h100 or tpu-v5p."
    )
    DEVICES = flags.DEFINE_integer(
        "devices", 0, "How many of them; 0: one, or as many as the topology has.", 0
    )
    MFU = flags.DEFINE_float(
        "mfu", 0.4, "Share of their dense bfloat16 peak that is reached.", 1e-3, 1.0
    )
    COMPILE = flags.DEFINE_string(
        "compile", "", "Compile the steps for a TPU slice, e.g. v5e:4x4 or v5p:2x2x4."
    )
    launch_flags.run(main)
