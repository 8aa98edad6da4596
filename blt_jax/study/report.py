"""One self-contained page from a study's folder, or from a table of runs alone: index.html, SVG,
PNG, report.json.

The laws come from points.csv and nothing else, so that a person's own table gives the same page
without the parts that only run folders can tell.
"""

import base64
import csv
import dataclasses
import io
import json
from itertools import combinations
from pathlib import Path

import jinja2
import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.scaling import all_laws, law_figures, law_fit
from blt_jax.scaling import figures as plots
from blt_jax.scaling.laws.frontier import best_sizes
from blt_jax.storage import write_bytes
from blt_jax.study import evaluation_figures, evaluation_results, results
from blt_jax.study import folder as study_folder

COLUMNS = (
    "name family size seed budget parameters non_embedding_parameters bytes_per_unit "
    "forward_flops_per_byte_exact forward_flops_per_byte_paper steps train_text_bytes "
    "train_flops_exact "
    "train_flops_paper entropy_model_flops_exact entropy_model_flops_paper train_bpb bpb"
).split()
SHOWN_BUDGETS = 6  # of a table's columns; report.json has all
SHOWN_PAIRS = 3  # of families in the lead; with more, only those with the best family


def write(study):
    """Draws STUDY/report from the run folders alone; returns the path of index.html. Raises
    ConfigError.
    """
    study = storage.at(study)
    plan, points, missing = results.load(study)
    told = results.read_json(study / study_folder.STUDY)["study"]
    convention = told["convention"]
    present = {p.family for p in points}
    looks = plots.looks(
        {family: fact["label"] for family, fact in plan["facts"].items()}
    )  # colours stay if one is late
    looks = {family: look for family, look in looks.items() if family in present}
    headers = {
        family: results.read_json(
            study / study_folder.STORE / plan["facts"][family]["index"] / "header.json"
        )
        for family in looks
    }
    figures = {
        "flops_per_byte": plots.flops_per_byte(points, looks, convention, plan["entropy_model"]),
        "training": plots.training(points, looks),
    }
    patched = {family: header for family, header in headers.items() if header.get("row_patches")}
    if patched:
        figures["patch_lengths"] = plots.patch_lengths(patched, looks)
    sample = results.read_json(study / study_folder.SAMPLE)
    cut = {family: told for family, told in sample["families"].items() if family in looks}
    if cut:
        figures["sample"] = plots.sample(sample["text"], sample["entropies"], cut, looks)
    evaluated = _evaluated(study, looks)
    if evaluated["noise"]:
        figures["robustness"] = evaluation_figures.noises(evaluated["noise"], looks)
    if evaluated["dials"]:
        figures["thresholds"] = evaluation_figures.dials(
            evaluated["dials"], looks, evaluated["beside"]
        )
    if evaluated["tasks"]:
        figures["tasks"] = evaluation_figures.tasks(evaluated["tasks"], looks)
    comparisons = _comparisons(points, looks)
    out = study / study_folder.REPORT
    storage.make_folder(out)
    write_bytes(out / "points.csv", _csv(points).encode())
    summary = {
        "study": told["name"],
        "seeds": sorted({p.seed for p in points}),
        "done": len(points),
        "missing": missing,
        "comparisons": [dataclasses.asdict(c) for c in comparisons],
        "timing": {p.name: p.result["timing"] for p in points},
        "warnings": {p.name: p.result["warning"] for p in points if "warning" in p.result},
        "evaluations": {
            name: law_fit.as_json(evaluated[name]) for name in ("asked", "noise", "dials")
        },
    }
    shown = {
        "told": told,
        "plan": plan,
        "points": points,
        "headers": headers,
        "sources": _sources(headers),
    }
    shown["evaluated"] = evaluated
    return _page(
        out, told["name"], out / "points.csv", looks, figures, summary, shown, convention=convention
    )


def write_table(path, output, *, rename=None, convention="exact"):
    """Draws the page's law part into a folder from a table of runs; returns the path of index.html.
    Raises ConfigError.

    `rename` says {field: column} where the table has names of its own (see points.load).
    """
    out = storage.at(output)
    table = all_laws.read(path, rename=rename, convention=convention)
    looks = law_figures.looks_of(table.families())
    try:
        storage.make_folder(out)
    except OSError as error:
        raise ConfigError(f"--output={output}: cannot be a folder: {error.strerror}") from None
    summary = {"points": str(path), "rows": len(table), "notes": list(table.notes)}
    return _page(
        out, Path(path).stem, path, looks, {}, summary, {}, rename=rename, convention=convention
    )


def _page(out, title, path, looks, figures, summary, shown, **how):
    """Fits the table at `path`, draws everything into `out`; returns the path of index.html."""
    table = all_laws.read(path, **how)
    found, scored = (
        all_laws.fit_all(table, draws=all_laws.DRAWS),
        all_laws.scored(path, table, **how),
    )
    measure = all_laws.measure(path, how.get("rename"))
    envelope = {family: _envelope(table.of(family)) for family in table.families()}
    figures = _law_figures(table, scored, found, looks, how["convention"], measure) | figures
    pictures = {}
    for name, figure in figures.items():
        files = plots.encoded(figure)
        for kind, data in files.items():
            write_bytes(out / f"{name}.{kind}", data)
        pictures[name] = "data:image/svg+xml;base64," + base64.b64encode(files["svg"]).decode()
    summary |= {
        "convention": how["convention"],
        "envelope": envelope,
        "laws": law_fit.as_json(found),
    }
    write_bytes(out / "report.json", json.dumps(summary, indent=1, allow_nan=False).encode())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "short": plots.short,
        "number": _number,
        "interval": _interval,
        "saved": _saved,
        "count": lambda one: _interval(one, plots.short),
    }
    budgets = np.unique(table.budget)
    picked = np.unique(np.linspace(0, len(budgets) - 1, SHOWN_BUDGETS).round().astype(int))
    page = environment.get_template("report.html.j2").render(
        title=title,
        measure=measure,
        summary=summary,
        labels={family: look.label for family, look in looks.items()},
        laws=found,
        envelope={
            family: {one["budget"]: one for one in rows} for family, rows in envelope.items()
        },
        minima={
            family: {one.budget: one for one in law.minima}
            for family, law in found.isoflops.items()
        },
        saved={crossing.b: crossing for crossing in found.crossings if crossing.a == found.best},
        lead=_lead(found, summary.get("comparisons", ()), envelope),
        unsure=[
            family for family, law in found.frontiers.items() if not len(law.law.replicates_RxP)
        ],
        rough=[
            family for family, law in found.frontiers.items() if law.law.lack_of_fit.freedom < 5
        ],
        constants=_constants(found),
        quality=_quality(found),
        scored=scored is not None,
        budgets=budgets[picked].tolist(),
        all_budgets=len(budgets),
        rows=len(table),
        pictures=pictures,
        convention=how["convention"],
        study=shown,
    )
    write_bytes(out / "index.html", page.encode())
    return out / "index.html"


def _law_figures(table, scored, found, looks, convention, measure):
    few = found.crossings if len(found.crossings) <= SHOWN_PAIRS else ()
    figures = {
        "scaling": law_figures.frontiers(
            table, found.frontiers, few, looks, scored, convention, measure
        )
    }
    if "params" in table.values:
        figures["isoflop"] = law_figures.parabolas(table, found.isoflops, looks, measure)
    if any(one.params.value for law in found.isoflops.values() for one in law.minima):
        figures["best_sizes"] = law_figures.isoflops(found.isoflops, looks)
    if found.chinchillas:
        figures["chinchilla"] = law_figures.chinchillas(found.chinchillas, table, looks)
    if found.patch:
        figures["patch_laws"] = law_figures.patches(found.patch)
    return figures


def _number(value):
    return "–" if value is None else f"{value:.4g}".replace("e+0", "e").replace("e+", "e")


def _interval(estimate, told=_number):
    """'low to high' of an Estimate as told(value), with the share of draws that gave a value where
    some did not.
    """
    if estimate.low is None:
        return "no interval"
    share = "" if estimate.share > 0.999 else f", in {estimate.share:.0%} of draws"
    return f"{told(estimate.low)} to {told(estimate.high)}{share}"


def _saved(factor):
    """The part of the FLOPs that a factor (an Estimate; see frontier.Saving) saves, in per cent;
    negative: it costs.
    """
    if factor.value is None:
        return "never gets there"
    part = lambda value: f"{1 - 1 / value:.0%}".replace("-", "−")
    if factor.low is None:
        return f"{part(factor.value)} (no interval)"
    share = "" if factor.share > 0.999 else f", in {factor.share:.0%} of draws"
    return f"{part(factor.value)} (90%: {part(factor.low)} to {part(factor.high)}{share})"


def _envelope(own):
    """[{budget, flops, bpb, params}] of one family's best size at each budget, means over seeds."""
    rows = []
    for budget, mask_M in best_sizes(own):
        best = own.where(mask_M)
        params = float(best["params"].mean()) if "params" in best.values else None
        rows.append(
            {
                "budget": budget,
                "flops": float(best["flops"].mean()),
                "bpb": float(best["bpb"].mean()),
            }
        )
        rows[-1]["params"] = params
    return rows


def _comparisons(points, families):
    """Every pair of families at the largest budget that both have reached, best sizes."""
    found = []
    for one, other in combinations(families, 2):
        a, b = (
            {budget: group for budget, _, group in results.envelope(points, family)}
            for family in (one, other)
        )
        common = sorted(a.keys() & b.keys())
        if common:
            found.append(results.compare(a[common[-1]], b[common[-1]], common[-1]))
    return found


def _lead(found, comparisons, envelope):
    """[(a, b, comparison or None, Crossing or None)] for the page's first words, a the lower at its
    last budget.
    """
    compared = {frozenset((one["a"], one["b"])): one for one in comparisons}
    crossed = {frozenset((one.a, one.b)): one for one in found.crossings}
    order = sorted(envelope, key=lambda family: envelope[family][-1]["bpb"])
    pairs = list(combinations(order, 2))
    if len(pairs) > SHOWN_PAIRS:
        pairs = [pair for pair in pairs if order[0] in pair]
    return [
        (a, b, compared.get(frozenset((a, b))), crossed.get(frozenset((a, b)))) for a, b in pairs
    ]


def _constants(found):
    """[(law, family, constant, Estimate)]."""
    rows = []
    for family, one in found.frontiers.items():
        rows += [
            (str(one.law.law), family, name, value) for name, value in one.law.constants.items()
        ]
    for family, one in found.isoflops.items():
        for law, letter in ((one.params, "N"), (one.data, "D")):
            if law:
                words, exponent = f"{letter}_opt = {letter}0 C^a", law.exponents["flops"]
                rows += [
                    (words, family, f"{letter}0", law.constant),
                    (words, family, "a", exponent),
                ]
    for family, one in found.chinchillas.items():
        rows += [(str(one.law), family, name, value) for name, value in one.constants.items()]
        rows.append((str(one.law), family, "a of N_opt ~ C^a", law_fit.allocation(one, [1.0]).a))
    return rows


def _quality(found):
    """[(law, family, LawFit)] of the laws of loss."""
    rows = [("frontier", family, one.law) for family, one in found.frontiers.items()]
    rows += [("Chinchilla", family, one) for family, one in found.chinchillas.items()]
    return rows + ([("joint with patch size", None, found.patch.joint)] if found.patch else [])


def _evaluated(study, families):
    """What STUDY/evaluations says of these families, for the page; empty parts where nothing was
    evaluated.
    """
    found = evaluation_results.of_study(study, families)
    told = {"asked": {family: one["asked"] for family, one in found.items()}}
    told |= {
        "noise": evaluation_results.under_noise(found),
        "dials": evaluation_results.along_thresholds(found),
    }
    told["tasks"] = evaluation_results.on_tasks(found) if found else {}
    if found:
        told |= {
            "base": evaluation_results.baseline(found),
            "beside": evaluation_results.beside_dials(found),
        }
        sizes = next(iter(found.values()))["texts"]["bytes"]
        told |= {"documents": len(sizes), "bytes": sum(sizes)}
    return told


def _sources(headers):
    """[(source, {family: text bytes per patch or token})], largest source first."""
    table = {}
    for family, header in headers.items():
        units = "patches" if header.get("row_patches") else "positions"
        for source, counts in header["sources"].items():
            table.setdefault(source, {"text_bytes": counts["text_bytes"]})
            if counts[units]:
                table[source][family] = counts["text_bytes"] / counts[units]
    return sorted(table.items(), key=lambda item: -item[1]["text_bytes"])


def _csv(points):
    """Only what two equal studies have in common: no timings."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in points:
        forward, spent = p.cost["forward_flops_per_byte"], p.result["train_flops"]
        share = p.result["text_bytes"] / p.cost["bytes"]
        row = [
            p.name,
            p.family,
            p.size,
            p.seed,
            p.budget,
            p.cost["parameters"]["total"],
            p.parameters,
        ]
        row += [
            p.cost["bytes_per_unit"],
            forward["exact"]["total"],
            forward["paper"]["total"],
            p.result["steps"],
        ]
        row += [p.result["text_bytes"], spent["exact"], spent["paper"]]
        row += [p.cost["entropy_model_flops"][c] * share for c in ("exact", "paper")]
        writer.writerow(row + [p.result["train_bpb"], p.bpb])
    return buffer.getvalue()
