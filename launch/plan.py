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

import dataclasses
import fnmatch
import json
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.families.blt.config import Blt
from blt_jax.flops import hardware
from blt_jax.parallel import topology as slices
from blt_jax.record import build, fingerprint, to_dict
from blt_jax.study import forecast, grid
from blt_jax.study.config import Study
from launch import flags as launch_flags

GIB = 2**30
SOURCES = 12  # shown of a training text, the largest
COLLECTIVES = (
    "of one device; times: per step; bytes: of results, all times; largest: bytes of one array"
)


# ---------------------------------------------------------------- tables


def _print(title, rows, caption=None):
    """A table of dicts with the same keys; text to the left, numbers to the right."""
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name, value in rows[0].items():
        table.add_column(
            name.replace("_", " "),
            justify="left" if isinstance(value, str) else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(
            *(value if isinstance(value, str) else _short(value) for value in row.values())
        )
    wide = sum(max(len(name), *(len(str(row[name])) for row in rows)) + 3 for name in rows[0])
    Console(width=None if Console().is_terminal else max(160, wide)).print(table)


def _short(value):
    """1.26e9 as 1.26B up to trillions; larger and smaller numbers in their own form."""
    if value is None:
        return "-"
    if isinstance(value, int) and value < 10_000:
        return str(value)
    for limit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if limit <= value < 1e15:
            return f"{value / limit:.3g}{letter}"
    return f"{value:,.0f}" if 1e3 <= value < 1e6 else f"{value:.3g}"


def show(planned, forecasts=None, details=False):
    """Prints the table of planned runs; with `forecasts` (one of each) what they ask of the
    machine.
    """
    measured = all(one.fact.measured for one in planned)
    rows = []
    for one, ahead in zip(planned, forecasts or [None] * len(planned), strict=True):
        cost = one.cost
        row = {
            "name": one.name,
            "parameters": cost["parameters"]["total"],
            "non-embedding": cost["parameters"]["non_embedding"],
            "bytes per": f"{cost['bytes_per_unit']:.2f}/{cost['unit']}",
            "FLOPs/byte": cost["forward_flops_per_byte"][cost["convention"]]["total"],
            "bytes": cost["bytes"],
            "steps": cost["steps"],
            "total FLOPs": cost["train_flops"][cost["convention"]],
            "mismatch": f"{cost['mismatch']:+.2%}",
        }
        if ahead:
            row |= {
                "mesh": " x ".join(str(n) for n in ahead["mesh"].values()),
                "GiB/device": ahead["memory"]["total"] / GIB,
                "fits": "yes" if ahead["fits"] else "NO",
                "at least": ahead["fewest_devices"],
                "hours": ahead["hours"],
                "device-hours": ahead["device_hours"],
            }
        rows.append(row)
    title = f"{len(rows)} runs" + ("" if measured else " (assumed patch and token sizes)")
    _print(title, rows, caption=_assumed(planned))
    if details:
        _details(planned, forecasts)


def show_sources(planned):
    """Prints what share of its text each source is, and how often the shortest and longest run read
    it.
    """
    costs = sorted((one.cost for one in planned), key=lambda cost: cost["bytes"])
    shares = {source: one["share"] for source, one in costs[-1].get("sources", {}).items()}
    order = sorted(shares, key=lambda source: -shares[source])
    rows = []
    for source in order[:SOURCES]:
        epochs = [cost["sources"][source]["epochs"] for cost in (costs[0], costs[-1])]
        rows.append(
            {
                "source": source,
                "share": f"{shares[source]:.2%}",
                "epochs": " to ".join(f"{n:.3g}" for n in epochs),
            }
        )
    if rows:
        left = order[SOURCES:]
        rest = (
            f"and {len(left)} more, {sum(shares[source] for source in left):.2%} of the text"
            if left
            else None
        )
        _print("Sources; epochs in the shortest and longest run", rows, caption=rest)


def _assumed(planned):
    """Which sizes are assumed, by family."""
    unmeasured = {one.run.family: one.cost for one in planned if not one.fact.measured}
    if not unmeasured:
        return None
    told = ", ".join(
        f"{family} {cost['bytes_per_unit']:.2f} bytes/{cost['unit']}"
        for family, cost in unmeasured.items()
    )
    return f"assumed, not measured: {told}"


def _details(planned, forecasts):
    """Parameters, FLOPs and memory by part, once for each model of each family."""
    seen = {}
    for one, ahead in zip(planned, forecasts or [None] * len(planned), strict=True):
        seen.setdefault((one.run.family, one.run.size), (one, ahead))
    name = lambda one: f"{one.run.family} {one.run.size}"
    convention = planned[0].cost["convention"]
    _print(
        "Parameters by part",
        [{"model": name(one)} | one.cost["parameters"] for one, _ in seen.values()],
    )
    flops = [
        {"model": name(one)} | one.cost["forward_flops_per_byte"][convention]
        for one, _ in seen.values()
    ]
    scoring = [
        one.cost["entropy_model_flops"][convention] / one.cost["bytes"] for one, _ in seen.values()
    ]
    rows = [row | {"entropy model": extra} for row, extra in zip(flops, scoring, strict=True)]
    _print(
        f"Forward FLOPs per byte by part ({convention}; the entropy model is not in the total)",
        rows,
    )
    if forecasts:
        rows = [
            {"model": name(o)} | {k: v / GIB for k, v in a["memory"].items()}
            for o, a in seen.values()
        ]
        _print("GiB per device by part (a model of it)", rows)


# ---------------------------------------------------------------- compile


def programs(planned):
    """One run of each distinct training step: budgets and seeds share theirs."""
    distinct = {}
    for one in planned:
        run, fact = one.run, one.fact
        train = dataclasses.replace(run.train, steps=1, seed=0, checkpoint_every=1)
        key = fingerprint(run.model, train, run.mesh, [fact.row_positions, fact.row_patches])
        distinct.setdefault(key, one)
    return list(distinct.values())


def compile_all(planned, topology: slices.Topology):
    """Compiles and prints one program after the other. Returns their JSON values by run name."""
    devices, real = slices.devices(topology)
    if not real:
        print(
            f"libtpu is not installed: compiling for {topology.devices} forced host devices, not "
            f"{topology.name}. "
            "Arguments and collectives are those of the mesh; temporaries are not a TPU's. pip "
            "install -e '.[tpu]'"
        )
    from blt_jax.parallel.mesh import make_mesh  # jax: only now that its devices are chosen
    from blt_jax.train import aot

    chosen = programs(planned)
    print(f"compiling {len(chosen)} distinct steps for {topology.name}: minutes each", flush=True)
    found = {}
    for one in chosen:
        run = dataclasses.replace(
            one.run, train=dataclasses.replace(one.run.train, dtype="bfloat16")
        )
        slots = one.fact.row_patches if isinstance(run.model, Blt) else 0
        try:
            program = aot.compile_step(
                run, make_mesh(run.mesh, devices), one.fact.row_positions, slots
            )
        except ConfigError as error:
            print(f"{one.name}: {error}", flush=True)
            found[one.name] = {"error": str(error)}
            continue
        found[one.name] = dataclasses.asdict(program) | {
            "topology": topology.name,
            "compiler": "tpu" if real else "host",
        }
        _print_program(one.name, program, topology, real)
    return found


def _print_program(name, program, topology, real):
    room = topology.hardware.hbm_bytes
    row = {
        "step of": name,
        "devices": program.devices,
        "compile s": round(program.seconds),
        "arguments GiB": program.arguments / GIB,
        "temporaries GiB": program.temporaries / GIB,
        "peak GiB": program.peak / GIB,
        "kernels": program.kernels,
    }
    if real:
        row["device has"] = f"{room / GIB:.0f} GiB"
        row["room"] = f"{1 - program.needs / room:.0%}"
    caption = (
        "room: what arguments and temporaries leave free"
        if real
        else "temporaries and peak are not a TPU's"
    )
    _print(f"{name} on {topology.name}", [row], caption=caption)
    rows = [{"collective": kind} | told for kind, told in sorted(program.collectives.items())]
    if rows:
        _print("Collectives that the program names", rows, caption=COLLECTIVES)


# ---------------------------------------------------------------- command


def measured_facts(study, folder):
    """FamilyFacts that a study's folder has measured. Raises ConfigError where it has not, or is
    another's.
    """
    path = storage.at(folder) / "plan.json"
    if not path.exists():
        raise ConfigError(
            f"workdir = {folder!r}: holds no plan.json yet; leave --workdir out to plan on "
            "assumed sizes"
        )
    told = json.loads(path.read_text())["facts"]
    missing = sorted(set(study.families) - set(told))
    if missing:
        raise ConfigError(
            f"workdir = {folder!r}: knows nothing of family {missing[0]!r}; is it another study's?"
        )
    drop = ("label",)
    return {
        name: build(grid.FamilyFacts, {k: v for k, v in told[name].items() if k not in drop})
        for name in study.families
    }


def select(planned, pattern):
    """Runs whose names match the glob. Raises ConfigError when none does."""
    kept = [one for one in planned if fnmatch.fnmatchcase(one.name, pattern)]
    if not kept:
        raise ConfigError(
            f"runs = {pattern!r}: matches none of {len(planned)} runs such as {planned[0].name}"
        )
    return kept


def main(_):
    study = build(Study, CONFIG.value.to_dict())
    topology = slices.parse(COMPILE.value) if COMPILE.value else None
    facts = measured_facts(study, WORKDIR.value) if WORKDIR.value else grid.assumed_facts(study)
    planned = select(grid.plan(study, facts), RUNS.value)

    forecasts = None
    if HARDWARE.value or topology:
        device = hardware.by_name(HARDWARE.value) if HARDWARE.value else topology.hardware
        count = DEVICES.value or (topology.devices if topology else 1)
        machine = forecast.Machine(device, count, MFU.value)
        forecasts = [
            forecast.forecast(one, machine)
            | {"fewest_devices": forecast.fewest_devices(one, machine)}
            for one in planned
        ]
        print(
            f"{count} x {device.name} at {MFU.value:.0%} of {device.peaks['bfloat16']:.4g} FLOP/s "
            "(dense bfloat16)"
        )
    show(planned, forecasts, DETAILS.value)
    compiled = compile_all(planned, topology) if topology else {}

    if JSON.value:
        runs = [
            {"name": one.name, "cost": one.cost, "config": to_dict(one.run)}
            | ({"forecast": ahead} if ahead else {})
            | ({"compiled": compiled[one.name]} if one.name in compiled else {})
            for one, ahead in zip(planned, forecasts or [None] * len(planned), strict=True)
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
