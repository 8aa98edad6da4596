"""Fit a scaling law to a table of runs, with 90% bootstrap intervals, lack of fit and a held-out
largest budget.

    python -m launch.fit --points=runs/quickstart/report/points.csv --law=frontier --json=fit.json
    python -m launch.fit --points=points.csv --law=patch --budget=1e22 --inference=2e9 \\
        --plot=patch.svg
    python -m launch.fit --points=chinchilla.csv --law=chinchilla --drop_highest=5 \\
        --columns='params=Model Size,flops=Training FLOP'

    law         columns                    says
    chinchilla  params, data, loss         L = E + A/N^alpha + B/D^beta and its compute-optimal split (C = 6 N D)
    isoflop     params, data, loss         the best size at each budget, N_opt ~ C^a, D_opt ~ C^b
    frontier    flops, bpb, family         BPB = e + a/C^b on each budget's best size, or at --ratio of data to params
    crossing    flops, bpb, family         where two families' frontiers meet, and the FLOPs saved at equal BPB
    patch       params, flops, loss, patch N*(C, T), B*(C, T), T*(C) with the mean patch size T; a joint law of loss,
                                           and the best patch and size at --budget and --inference FLOPs per byte

A points.csv of ours has all of them. `data` may be left out where flops = 6 params data. Files are
CSV, or a JSON list of records. Runs that differ only in seed count as one run with several seeds.
"""

import json
from itertools import combinations
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.table import Table

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, law_fit, points
from blt_jax.scaling.laws import frontier, isoflop, patch
from launch import flags as launch_flags

NEEDED = {
    "chinchilla": ("params", "data", "loss"),
    "isoflop": ("params", "data", "loss"),
    "frontier": ("flops", "bpb"),
    "crossing": ("flops", "bpb"),
    "patch": ("params", "data", "flops", "loss", "patch"),
}


def columns(text):
    """{field: column} of `field=Column name,field=...`."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(sign for _, sign, _ in pairs):
        raise ConfigError(f"--columns={text!r}: must be FIELD=COLUMN, with commas between")
    return {field.strip(): column.strip() for field, _, column in pairs}


def chosen(table, families):
    """Points of the named families, all without names. Raises ConfigError for a name that is not
    there.
    """
    if not families:
        return table
    for name in families:
        if name not in table.families():
            raise ConfigError(f"--families={name}: {table.path} has {', '.join(table.families())}")
    return table.where([family in families for family in table.family])


def fit_each(table, seed, one):
    """{family: one(points, seed)}, every family with draws of its own."""
    return {family: one(table.of(family), [seed, i]) for i, family in enumerate(table.families())}


def fit_law(law, table, *, draws, seed, ratio=None, budget=None, inference=None):
    """{name: result} of a law: dataclasses of blt_jax.scaling by family, then crossings by pair of
    families.
    """
    how = {"draws": draws}
    if law == "chinchilla":
        return fit_each(
            table, seed, lambda own, seed: law_fit.fit(law_fit.CHINCHILLA, own, seed=seed, **how)
        )
    if law == "isoflop":
        return fit_each(table, seed, lambda own, seed: isoflop.fit(own, seed=seed, **how))
    if law == "patch":
        found = patch.fit_patch_laws(table, seed=seed, **how)
        answers = [patch.answer(found, budget or table.budget.max())]
        if inference:
            answers.append(patch.answer(found, budget or table.budget.max(), inference))
        return {"patch": found, "answers": answers}
    fits = fit_each(
        table, seed, lambda own, seed: frontier.fit_frontier(own, seed=seed, ratio=ratio, **how)
    )
    if law == "frontier":
        return fits
    if len(fits) < 2:
        raise ConfigError(
            f"{table.path}: one family, {next(iter(fits))!r}; a crossing needs two in column family"
        )
    return fits | {
        f"{a} x {b}": frontier.crossing(fits[a], fits[b]) for a, b in combinations(fits, 2)
    }


def number(value):
    return "-" if value is None else f"{value:.4g}".replace("e+", "e")


def interval(estimate):
    """'low to high', with the share of replicates that gave a value where it is not all of them."""
    if estimate.low is None:
        return "-"
    share = "" if estimate.share > 0.999 else f" ({estimate.share:.0%} of draws)"
    return f"{number(estimate.low)} to {number(estimate.high)}{share}"


def table_of(title, estimates):
    """A table of {name: Estimate}."""
    table = Table(title=title, title_justify="left")
    for name in ("", "value", "90% interval"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for name, estimate in estimates.items():
        table.add_row(name, number(estimate.value), interval(estimate))
    return table


def quality(found):
    """Lines on a LawFit: how well it holds where it was fitted, and one budget further."""
    lack = found.lack_of_fit
    lines = [
        f"{lack.rows} rows, {lack.runs} runs, {lack.constants} constants; Huber sum "
        f"{found.huber:.6g}; "
        f"residuals of log loss: rms {lack.rms:.2g}, largest {lack.largest:.2g}"
    ]
    if lack.p_value is not None:
        lines.append(
            f"against the scatter of seeds ({lack.seed_rms:.2g}): F = {lack.f:.3g}, p = "
            f"{lack.p_value:.2g}"
        )
    if lack.freedom < 5:
        lines.append(
            f"only {lack.freedom} runs more than constants: intervals are rough, rather too narrow"
        )
    return lines + [extrapolation(found.held_out)]


def extrapolation(held, what="loss"):
    if held is None:
        return "held out: nothing, the runs below the largest budget are too few"
    runs = f"{held.runs} row{'s' if held.runs > 1 else ''} up to {number(held.budget)} FLOPs"
    return f"held out {runs}: {what} predicted {held.error:+.2%} off, at most {held.largest:+.2%}"


def show_chinchilla(name, found):
    table = table_of(f"{name}: {found.law}", found.constants)
    split = law_fit.allocation(found, [1e18, 1e20, 1e22, 1e24])
    table.add_section()
    table.add_row("N_opt ~ C^", number(split.a.value), interval(split.a))
    for i, budget in enumerate(split.budget):
        for what, (low, value, high) in (("N_opt", split.params), ("D/N", split.data_per_param)):
            band = "-" if low is None else f"{number(low[i])} to {number(high[i])}"
            table.add_row(f"{what} at {number(budget)}", number(value[i]), band)
    return [table, *quality(found)]


def show_isoflop(name, found):
    table = Table(title=f"{name}: the best size by budget", title_justify="left")
    for head in ("FLOPs", "sizes", "N_opt", "90% interval", "D_opt", "loss", ""):
        table.add_column(head)
    for one in found.minima:
        values = [
            number(one.params.value),
            interval(one.params),
            number(one.data.value),
            number(one.loss.value),
        ]
        table.add_row(number(one.budget), str(one.sizes), *values, one.word)
    if found.params is None:
        return [table, "fewer than two minima inside the grid: no law"]
    laws = {}
    for head, law in (("N", found.params), ("D", found.data)):
        laws |= {f"{head}_opt = {head}0 C^a: {head}0": law.constant, "a": law.exponents["flops"]}
        laws = {key if key != "a" else f"{head}: a": value for key, value in laws.items()}
    return [
        table,
        table_of(
            f"through {found.params.points} minima, rms of log N_opt {found.params.rms:.2g}", laws
        ),
        extrapolation(found.held_out, "N_opt"),
    ]


def show_frontier(name, found):
    table = table_of(f"{name}, {found.basis}: {found.law.law}", found.law.constants)
    table.add_section()
    for point in found.points:
        table.add_row(f"bpb at {number(point.flops)}", number(point.bpb.value), interval(point.bpb))
    return [table, *(f"no point at {words}" for words in found.refused), *quality(found.law)]


def show_crossing(name, found):
    table = Table(
        title=f"{name}: FLOPs of {found.b} / FLOPs of {found.a} at equal BPB", title_justify="left"
    )
    for head in ("FLOPs", "BPB", "factor", "90% interval", ""):
        table.add_column(head)
    for one in found.savings:
        factor = number(one.factor.value), interval(one.factor)
        table.add_row(
            number(one.budget), number(one.bpb), *factor, "extrapolated" if one.extrapolated else ""
        )
    lines = [
        f"{name}: {found.words}",
        f"{found.share:.0%} of the draws cross in the range looked at",
    ]
    return [
        *lines,
        *(f"crossing at {number(one.value)}: 90% {interval(one)}" for one in found.budgets),
        table,
    ]


def show_patch(found, answers):
    optima = Table(title="optimum of the paraboloid by budget", title_justify="left")
    for head in ("FLOPs", "runs", "T*", "90% interval", "N*", "90% interval", "loss", ""):
        optima.add_column(head)
    for one in found.optima:
        best = (
            number(one.patch.value),
            interval(one.patch),
            number(one.params.value),
            interval(one.params),
        )
        optima.add_row(number(one.budget), str(one.runs), *best, number(one.loss.value), one.word)
    laws = {}
    for head, law in (("N*", found.params), ("B*", found.data), ("T*", found.patch)):
        if law is not None:
            laws[f"{head}: constant"] = law.constant
            laws |= {
                f"{head}: {'C' if name == 'flops' else 'T'}^": e
                for name, e in law.exponents.items()
            }
    best = Table(title="best by the joint law (T within what was trained)", title_justify="left")
    for head in ("FLOPs", "forward FLOPs/byte", "T", "90% interval", "N", "bytes", "loss", ""):
        best.add_column(head)
    for one in answers:
        values = (
            number(one.patch.value),
            interval(one.patch),
            number(one.params.value),
            number(one.data.value),
        )
        best.add_row(
            number(one.budget), number(one.inference), *values, number(one.loss.value), one.words
        )
    return [
        optima,
        table_of("N* = N0 C^a T^b, B* = B0 C^a T^b, T* = T0 C^a", laws),
        extrapolation(found.held_out, "N*"),
        table_of(str(found.joint.law), found.joint.constants),
        *quality(found.joint),
        f"cost: {found.cost.law}, rms of logs {found.cost.lack_of_fit.rms:.2g}",
        best,
    ]


SHOW = {
    law_fit.LawFit: show_chinchilla,
    isoflop.IsoflopFit: show_isoflop,
    frontier.FrontierFit: show_frontier,
    frontier.Crossing: show_crossing,
}


def plot(law, found, table):
    """The Figure of a law's results."""
    from blt_jax.scaling import law_figures  # matplotlib takes longer to import than all else

    if law == "chinchilla":
        return law_figures.chinchillas(found, table)
    if law == "isoflop":
        return law_figures.isoflops(found)
    if law == "patch":
        return law_figures.patches(found["patch"])
    crossings = [one for one in found.values() if isinstance(one, frontier.Crossing)]
    return law_figures.frontiers(
        table, {n: one for n, one in found.items() if one not in crossings}, crossings
    )


def check_outputs():
    """Before minutes are spent: raises ConfigError for a picture of unknown kind or a folder that
    is not there.
    """
    for flag, path in (("json", JSON.value), ("plot", PLOT.value)):
        if path and not Path(path).absolute().parent.is_dir():
            raise ConfigError(f"--{flag}={path}: there is no folder {str(Path(path).parent)!r}")
    if PLOT.value and Path(PLOT.value).suffix not in (".svg", ".png", ".pdf"):
        raise ConfigError(f"--plot={PLOT.value}: must end in .svg, .png or .pdf")


def main(_):
    check_outputs()
    law, draws, seed = LAW.value, BOOTSTRAP.value, SEED.value
    how = {
        "convention": CONVENTION.value,
        "entropy_model": ENTROPY_MODEL.value,
        "rename": columns(COLUMNS.value),
    }
    needed = NEEDED[law] + (
        ("params", "data") if RATIO.value and law in ("frontier", "crossing") else ()
    )
    table = chosen(points.load(POINTS.value, needed, **how), FAMILIES.value)
    table = table.without_highest(DROP_HIGHEST.value, "loss" if "loss" in needed else "bpb")
    asked = {"ratio": RATIO.value, "budget": BUDGET.value, "inference": INFERENCE.value}
    found = fit_law(law, table, draws=draws, seed=seed, **asked)
    notes = [f"{POINTS.value}: {len(table)} rows", *table.notes]
    notes.append(
        f"{bootstrap.LEVEL:.0%} intervals of {draws} bootstrap draws over runs and seeds, seed "
        f"{seed}"
    )
    if law == "patch":
        shown = show_patch(found["patch"], found["answers"])
    else:
        shown = [line for name, one in found.items() for line in SHOW[type(one)](name, one)]
    console = Console(width=None if Console().is_terminal else 160)
    console.print(*shown, "; ".join(notes), sep="\n", highlight=False)
    if PLOT.value:
        plot(law, found, table).savefig(PLOT.value)
    if JSON.value:
        told = {"law": law, "points": POINTS.value, "rows": len(table), "notes": list(table.notes)}
        told["convention"] = CONVENTION.value
        told["bootstrap"] = {
            "draws": draws,
            "seed": seed,
            "level": bootstrap.LEVEL,
            "over": "runs and seeds",
        }
        Path(JSON.value).write_text(
            json.dumps(told | {"fits": law_fit.as_json(found)}, indent=1, allow_nan=False)
        )
    return 0


if __name__ == "__main__":
    POINTS = flags.DEFINE_string(
        "points", None, "Table of runs: CSV, or a JSON list of records.", required=True
    )
    LAW = flags.DEFINE_enum("law", None, list(NEEDED), "Which law.", required=True)
    JSON = flags.DEFINE_string("json", "", "Also write the fit here, as JSON.")
    PLOT = flags.DEFINE_string("plot", "", "Also draw the fit here: .svg, .png or .pdf.")
    COLUMNS = flags.DEFINE_string(
        "columns", "", "Columns with other names: FIELD=COLUMN, with commas between."
    )
    FAMILIES = flags.DEFINE_list("families", [], "Only these families.")
    DROP_HIGHEST = flags.DEFINE_integer(
        "drop_highest", 0, "Leave out this many rows of highest loss.", lower_bound=0
    )
    CONVENTION = flags.DEFINE_enum(
        "convention", "exact", ["exact", "paper"], "FLOPs of a points.csv of ours."
    )
    ENTROPY_MODEL = flags.DEFINE_bool(
        "entropy_model", False, "Add the entropy model's FLOPs, from a points.csv of ours."
    )
    RATIO = flags.DEFINE_float(
        "ratio", None, "Frontier at this ratio of data to params.", lower_bound=1e-9
    )
    BUDGET = flags.DEFINE_float(
        "budget", None, "Training FLOPs to answer for (patch); default: the largest."
    )
    INFERENCE = flags.DEFINE_float(
        "inference", None, "Forward FLOPs per byte to answer for (patch)."
    )
    BOOTSTRAP = flags.DEFINE_integer(
        "bootstrap", 1000, "Bootstrap draws; 0 for no intervals.", lower_bound=0
    )
    SEED = flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.")
    launch_flags.run(main)
