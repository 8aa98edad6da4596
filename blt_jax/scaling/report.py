"""One self-contained report from a study's folder: index.html, PNG plots, points.csv, report.json."""

import base64
import csv
import dataclasses
import io
import json
import os
from itertools import combinations
from pathlib import Path

import jinja2

from blt_jax.scaling import curves, isoflop, plots

COLUMNS = (
    "name family size seed budget parameters non_embedding_parameters bytes_per_unit "
    "forward_flops_per_byte_exact forward_flops_per_byte_paper steps train_text_bytes train_flops_exact "
    "train_flops_paper entropy_model_flops_exact entropy_model_flops_paper train_bpb bpb"
).split()


def write(study):
    """Draws STUDY/report from the run folders alone; returns the path of index.html. Raises ConfigError."""
    study = Path(study)
    plan, points, missing = curves.load(study)
    told = curves.read_json(study / "study.json")["study"]
    convention = told["convention"]
    labels = {family: fact["label"] for family, fact in plan["facts"].items()}
    labels = {family: label for family, label in labels.items() if any(p.family == family for p in points)}
    colours = {family: plots.COLOURS[i % len(plots.COLOURS)] for i, family in enumerate(plan["facts"])}
    headers = {
        family: curves.read_json(study / "store" / plan["facts"][family]["index"] / "header.json") for family in labels
    }
    patched = {family: header for family, header in headers.items() if header.get("row_patches")}

    figures = {
        "scaling": plots.scaling(points, labels, colours, convention),
        "isoflop": plots.isoflop(points, labels, convention),
        "flops_per_byte": plots.flops_per_byte(points, labels, convention, plan["entropy_model"]),
        "training": plots.training(points, labels, colours),
    }
    if patched:
        figures["patch_lengths"] = plots.patch_lengths(patched, labels, colours)
    sample = curves.read_json(study / "sample.json")
    if sample["families"]:
        figures["sample"] = plots.sample(sample["text"], sample["entropies"], sample["families"], colours)

    comparisons, minima = _comparisons(points, labels), _minima(points, labels)
    out = study / "report"
    out.mkdir(exist_ok=True)
    pictures = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        _replace(out / f"{name}.png", buffer.getvalue())
        pictures[name] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    _replace(out / "points.csv", _csv(points).encode())
    summary = {
        "study": told["name"],
        "convention": convention,
        "seeds": sorted({p.seed for p in points}),
        "done": len(points),
        "missing": missing,
        "envelope": {
            family: [
                {"budget": b, "bpb": bpb, "size": group[0].size} for b, bpb, group in curves.envelope(points, family)
            ]
            for family in labels
        },
        "comparisons": [dataclasses.asdict(c) for c in comparisons],
        "minima": minima,
        "timing": {p.name: p.result["timing"] for p in points},
    }
    _replace(out / "report.json", json.dumps(summary, indent=1).encode())
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["short"] = lambda value: f"{value:.4g}".replace("e+", "e")
    page = environment.get_template("report.html.j2").render(
        told=told,
        plan=plan,
        points=points,
        missing=missing,
        labels=labels,
        convention=convention,
        pictures=pictures,
        comparisons=comparisons,
        minima=minima,
        headers=headers,
        sources=_sources(headers),
        seeds=summary["seeds"],
        budgets=sorted({p.budget for p in points}),
        envelope=summary["envelope"],
    )
    _replace(out / "index.html", page.encode())
    return out / "index.html"


def _replace(path, data):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _comparisons(points, labels):
    """Every pair of families at the largest budget that both have reached, best sizes."""
    found = []
    for one, other in combinations(labels, 2):
        a, b = ({budget: group for budget, _, group in curves.envelope(points, family)} for family in (one, other))
        common = sorted(a.keys() & b.keys())
        if common:
            found.append(curves.compare(a[common[-1]], b[common[-1]], common[-1]))
    return found


def _minima(points, labels):
    rows = []
    for family in labels:
        for budget in sorted({p.budget for p in points if p.family == family}):
            groups = [g for (f, _, b), g in curves.mean_over_seeds(points).items() if f == family and b == budget]
            means = [sum(p.bpb for p in g) / len(g) for g in groups]
            found = isoflop.minimum([g[0].parameters for g in groups], means)
            row = {"family": family, "budget": budget, "parameters": found.parameters, "bpb": found.bpb}
            rows.append(row | {"word": found.word})
    return rows


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
        row = [p.name, p.family, p.size, p.seed, p.budget, p.cost["parameters"]["total"], p.parameters]
        row += [p.cost["bytes_per_unit"], forward["exact"]["total"], forward["paper"]["total"], p.result["steps"]]
        row += [p.result["text_bytes"], spent["exact"], spent["paper"]]
        row += [p.cost["entropy_model_flops"][c] * share for c in ("exact", "paper")]
        writer.writerow(row + [p.result["train_bpb"], p.bpb])
    return buffer.getvalue()
