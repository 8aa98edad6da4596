"""A plan as tables for a terminal: its runs, parts of their costs, its sources, compiled steps."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from blt_jax.parallel.topology import Topology
from blt_jax.scaling import number_format
from blt_jax.study.grid import PlannedRun

GIB = 2**30
SOURCES = 12  # shown of a training text, the largest
COLLECTIVES = (
    "of one device; times: per step; bytes: of results, all times; largest: bytes of one array"
)

Forecast = dict[str, Any]  # `forecast.forecast` and `fewest_devices`


@dataclasses.dataclass(frozen=True)
class Listing:
    """Rows of a table, dicts with the same keys: text to the left, numbers to the right."""

    title: str
    rows: Sequence[dict[str, Any]]
    caption: str | None = None

    @property
    def width(self) -> int:
        """Columns of a terminal that show it whole."""
        return sum(
            max(len(name), *(len(str(row[name])) for row in self.rows)) + 3 for name in self.rows[0]
        )

    def table(self) -> Table:
        table = Table(
            title=self.title, caption=self.caption, title_justify="left", caption_justify="left"
        )
        for name, value in self.rows[0].items():
            table.add_column(
                name.replace("_", " "),
                justify="left" if isinstance(value, str) else "right",
                no_wrap=True,
            )
        for row in self.rows:
            table.add_row(
                *(
                    value if isinstance(value, str) else number_format.cell(value)
                    for value in row.values()
                )
            )
        return table


# ---------------------------------------------------------------- runs


def runs(planned: Sequence[PlannedRun], forecasts: Sequence[Forecast] = ()) -> Listing:
    """The planned runs; with `forecasts`, one of each, what they ask of the machine."""
    rows = []
    for run, ahead in zip(planned, forecasts or [{}] * len(planned), strict=True):
        cost = run.cost
        row = {
            "name": run.name,
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
                "mesh": " x ".join(str(size) for size in ahead["mesh"].values()),
                "GiB/device": ahead["memory"]["total"] / GIB,
                "fits": "yes" if ahead["fits"] else "NO",
                "at least": ahead["fewest_devices"],
                "hours": ahead["hours"],
                "device-hours": ahead["device_hours"],
            }
        rows.append(row)
    measured = all(run.fact.measured for run in planned)
    title = f"{len(rows)} runs" + ("" if measured else " (assumed patch and token sizes)")
    return Listing(title, rows, _assumed(planned))


def _assumed(planned: Sequence[PlannedRun]) -> str | None:
    """Which sizes are assumed, by family."""
    unmeasured = {run.run.family: run.cost for run in planned if not run.fact.measured}
    if not unmeasured:
        return None
    sizes = ", ".join(
        f"{family} {cost['bytes_per_unit']:.2f} bytes/{cost['unit']}"
        for family, cost in unmeasured.items()
    )
    return f"assumed, not measured: {sizes}"


def parts(planned: Sequence[PlannedRun], forecasts: Sequence[Forecast] = ()) -> list[Listing]:
    """Parameters, FLOPs and memory by part, once for each model of each family."""
    models: dict[tuple[str, str], tuple[PlannedRun, Forecast]] = {}
    for run, ahead in zip(planned, forecasts or [{}] * len(planned), strict=True):
        models.setdefault((run.run.family, run.run.size), (run, ahead))
    named = [(f"{family} {size}", *model) for (family, size), model in models.items()]
    convention = planned[0].cost["convention"]
    parameters = [{"model": name} | run.cost["parameters"] for name, run, _ in named]
    flops = [
        {"model": name}
        | run.cost["forward_flops_per_byte"][convention]
        | {"entropy model": run.cost["entropy_model_flops"][convention] / run.cost["bytes"]}
        for name, run, _ in named
    ]
    listings = [
        Listing("Parameters by part", parameters),
        Listing(
            f"Forward FLOPs per byte by part ({convention}; the entropy model is not in the total)",
            flops,
        ),
    ]
    if forecasts:
        memory = [
            {"model": name} | {part: size / GIB for part, size in ahead["memory"].items()}
            for name, _, ahead in named
        ]
        listings.append(Listing("GiB per device by part (a model of it)", memory))
    return listings


def sources(planned: Sequence[PlannedRun]) -> Listing | None:
    """What share of its text each source is, and how often the shortest and longest run read it;
    None where sources were not measured.
    """
    costs = sorted((run.cost for run in planned), key=lambda cost: cost["bytes"])
    shares = {source: read["share"] for source, read in costs[-1].get("sources", {}).items()}
    order = sorted(shares, key=lambda source: -shares[source])
    rows = []
    for source in order[:SOURCES]:
        epochs = [cost["sources"][source]["epochs"] for cost in (costs[0], costs[-1])]
        rows.append(
            {
                "source": source,
                "share": f"{shares[source]:.2%}",
                "epochs": " to ".join(f"{count:.3g}" for count in epochs),
            }
        )
    if not rows:
        return None
    left = order[SOURCES:]
    share = sum(shares[source] for source in left)
    rest = f"and {len(left)} more, {share:.2%} of the text" if left else None
    return Listing("Sources; epochs in the shortest and longest run", rows, rest)


# ---------------------------------------------------------------- compiled steps


def program(name: str, program: Any, topology: Topology, real: bool) -> list[Listing]:
    """A compiled step (`train.aot.Program`) on a slice; `real`: by the TPU's own compiler."""
    memory = topology.hardware.hbm_bytes
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
        row["device has"] = f"{memory / GIB:.0f} GiB"
        row["room"] = f"{1 - program.needs / memory:.0%}"
    caption = (
        "room: what arguments and temporaries leave free"
        if real
        else "temporaries and peak are not a TPU's"
    )
    listings = [Listing(f"{name} on {topology.name}", [row], caption)]
    rows = [{"collective": kind} | counts for kind, counts in sorted(program.collectives.items())]
    if rows:
        listings.append(Listing("Collectives that the program names", rows, COLLECTIVES))
    return listings
