"""A study's report: the page of its points.csv (`scaling/page.py`), and what only its run folders
can tell.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from markupsafe import Markup

from blt_jax import storage
from blt_jax.scaling import law_fit, page
from blt_jax.scaling.looks import Look, looks
from blt_jax.scaling.number_format import number
from blt_jax.study import cautions, evaluation_figures, evaluation_results, results, run_figures
from blt_jax.study import folder as study_folder
from blt_jax.study.results import Comparison, Point

COLUMNS = (
    "name family size seed budget parameters non_embedding_parameters bytes_per_unit "
    "forward_flops_per_byte_exact forward_flops_per_byte_paper steps train_text_bytes "
    "train_flops_exact "
    "train_flops_paper entropy_model_flops_exact entropy_model_flops_paper train_bpb bpb"
).split()


def write(study: Path | str) -> Path:
    """Draws STUDY/report from the run folders alone; returns the path of index.html. Raises
    ConfigError.
    """
    folder = storage.at(study)
    plan, points, missing = results.load(folder)
    config = results.read_json(folder / study_folder.STUDY)["study"]
    convention = config["convention"]
    present = {p.family for p in points}
    # looks of all families that are planned: colours stay if one is late
    all_looks = looks({family: fact["label"] for family, fact in plan["facts"].items()})
    own_looks = {family: look for family, look in all_looks.items() if family in present}
    headers = {
        family: results.read_json(
            folder / study_folder.STORE / plan["facts"][family]["index"] / "header.json"
        )
        for family in own_looks
    }
    evaluated = _evaluated(folder, own_looks)
    labels = {family: look.label for family, look in own_looks.items()}
    warnings = cautions.cautions(plan, points, headers, labels)
    comparisons = _comparisons(points, own_looks, cautions.barred(warnings))
    out = folder / study_folder.REPORT
    storage.make_folder(out)
    storage.write_bytes(out / "points.csv", _csv(points).encode())
    evaluations = {name: evaluated[name] for name in ("asked", "noise")}
    evaluations["dials"] = evaluated["threshold_sweeps"]
    summary = {
        "study": config["name"],
        "seeds": sorted({p.seed for p in points}),
        "done": len(points),
        "missing": missing,
        "comparisons": [dataclasses.asdict(comparison) for comparison in comparisons],
        "timing": {p.name: p.result["timing"] for p in points},
        "warnings": {p.name: p.result["warning"] for p in points if "warning" in p.result},
        "cautions": [dataclasses.asdict(caution) for caution in warnings],
        "evaluations": law_fit.as_json(evaluations),
    }
    shown = {
        "config": config,
        "plan": plan,
        "points": points,
        "headers": headers,
        "sources": _sources(headers),
        "evaluated": evaluated,
    }
    figures = _figures(folder, plan, points, headers, evaluated, own_looks, convention)
    lead = {frozenset((c.a, c.b)): _sentence(c, own_looks) for c in comparisons}
    return page.draw(
        out,
        config["name"],
        out / "points.csv",
        own_looks,
        page.Extra(figures, lead, summary, {"study": shown}),
        convention=convention,
        template="report.html.j2",
        templates=(Path(__file__).parent,),
    )


def _figures(
    folder: Any,
    plan: Mapping[str, Any],
    points: Sequence[Point],
    headers: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    own_looks: Mapping[str, Look],
    convention: str,
) -> dict[str, Any]:
    """{name: Figure} of what run folders and evaluations tell."""
    figures = {
        "flops_per_byte": run_figures.flops_per_byte(
            points, own_looks, convention, plan["entropy_model"]
        ),
        "training": run_figures.training(points, own_looks),
    }
    patched = {family: header for family, header in headers.items() if header.get("row_patches")}
    if patched:
        figures["patch_lengths"] = run_figures.patch_lengths(patched, own_looks)
    sample = results.read_json(folder / study_folder.SAMPLE)
    cut = {family: own for family, own in sample["families"].items() if family in own_looks}
    if cut:
        text, entropies = sample["text"], sample["entropies"]
        figures["sample"] = run_figures.sample(text, entropies, cut, own_looks)
    if evaluated["noise"]:
        figures["robustness"] = evaluation_figures.noises(evaluated["noise"], own_looks)
    if evaluated["threshold_sweeps"]:
        figures["thresholds"] = evaluation_figures.threshold_sweeps(
            evaluated["threshold_sweeps"], own_looks, evaluated["without_threshold"]
        )
    if evaluated["tasks"]:
        figures["tasks"] = evaluation_figures.tasks(evaluated["tasks"], own_looks)
    return figures


def _comparisons(
    points: Sequence[Point], families: Iterable[str], barred: Mapping[str, str]
) -> list[Comparison]:
    """Every pair of families at the largest budget that both have reached, best sizes.

    Nothing is claimed of the families in `barred`.
    """
    comparisons = []
    for pair in combinations(families, 2):
        a, b = (
            {budget: group for budget, _, group in results.envelope(points, family)}
            for family in pair
        )
        common = sorted(a.keys() & b.keys())
        if common:
            comparison = results.compare(a[common[-1]], b[common[-1]], common[-1])
            if set(pair) & barred.keys():
                words = "no comparison is claimed, see the warnings below"
                comparison = dataclasses.replace(comparison, claim=False, words=words)
            comparisons.append(comparison)
    return comparisons


def _sentence(comparison: Comparison, own_looks: Mapping[str, Look]) -> Markup:
    """A comparison as the page's first lines say it."""
    parts = []
    if comparison.evaluation is not None:
        low, high = comparison.evaluation
        parts.append(f"validation text alone: 90% interval {low:.3f} to {high:.3f}")
    if comparison.seeds is not None:
        low, high = comparison.seeds
        parts.append(f"over seeds: {low:.3f} to {high:.3f}")
    intervals = f" ({'; '.join(parts)})" if parts else ""
    return Markup(
        "At {} FLOPs, best sizes: <b>{}</b> is {} bits per byte below <b>{}</b>{} – {}."
    ).format(
        number(comparison.budget),
        own_looks[comparison.a].label,
        f"{comparison.gap:.3f}",
        own_looks[comparison.b].label,
        intervals,
        comparison.words,
    )


def _evaluated(folder: Any, families: Iterable[str]) -> dict[str, Any]:
    """What STUDY/evaluations says of these families, for the page; empty parts where nothing was
    evaluated.
    """
    evaluations = evaluation_results.of_study(folder, families)
    parts: dict[str, Any] = {
        "asked": {family: evaluation["asked"] for family, evaluation in evaluations.items()},
        "noise": evaluation_results.under_noise(evaluations),
        "threshold_sweeps": evaluation_results.along_thresholds(evaluations),
        "tasks": evaluation_results.on_tasks(evaluations) if evaluations else {},
    }
    if evaluations:
        sizes = next(iter(evaluations.values()))["texts"]["bytes"]
        parts |= {
            "base": evaluation_results.baseline(evaluations),
            "without_threshold": evaluation_results.without_threshold(evaluations),
            "documents": len(sizes),
            "bytes": sum(sizes),
        }
    return parts


def _sources(headers: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """[(source, {family: text bytes per patch or token})], largest source first."""
    table: dict[str, dict[str, float]] = {}
    for family, header in headers.items():
        units = "patches" if header.get("row_patches") else "positions"
        for source, counts in header["sources"].items():
            table.setdefault(source, {"text_bytes": counts["text_bytes"]})
            if counts[units]:
                table[source][family] = counts["text_bytes"] / counts[units]
    return sorted(table.items(), key=lambda item: -item[1]["text_bytes"])


def _csv(points: Sequence[Point]) -> str:
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
