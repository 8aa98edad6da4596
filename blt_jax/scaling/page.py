"""A report's page from a table of runs alone: index.html, SVG, PNG, report.json.

The laws come from the table and nothing else; a study's report (`study/report.py`) draws the same
page and adds what only run folders can tell.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.scaling import figures, law_fit, laws, points, tables
from blt_jax.scaling.looks import Look, looks_of
from blt_jax.scaling.number_format import interval, number
from blt_jax.scaling.points import Points

DRAWS, SEED = 400, 0  # of a report's bootstrap
SHOWN_PAIRS = 3  # of families in the lead; with more, only those with the best family


@dataclasses.dataclass(frozen=True)
class Extra:
    """What a page shows besides the laws: a study's part.

    `lead`: {pair of families: the sentence that its paragraph begins with}; `summary`: first
    entries of report.json; `shown`: what its template reads.
    """

    figures: Mapping[str, Any]
    lead: Mapping[frozenset[str], Markup]
    summary: Mapping[str, Any]
    shown: Mapping[str, Any]


def write_table(
    path: Path | str,
    output: Path | str,
    *,
    rename: Mapping[str, str] | None = None,
    convention: str = "exact",
) -> Path:
    """Draws the page of a table of runs into a folder; returns the path of index.html. Raises
    ConfigError.

    `rename` says {field: column} where the table has names of its own (see points.load).
    """
    out = storage.at(output)
    table = read(path, rename=rename, convention=convention)
    try:
        storage.make_folder(out)
    except OSError as error:
        raise ConfigError(f"--output={output}: cannot be a folder: {error.strerror}") from None
    summary = {"points": str(path), "rows": len(table), "notes": list(table.notes)}
    extra = Extra({}, {}, summary, {})
    looks = looks_of(table.families())
    return draw(out, Path(path).stem, path, looks, extra, rename=rename, convention=convention)


def read(
    path: Path | str, *, rename: Mapping[str, str] | None = None, convention: str = "exact"
) -> Points:
    """Points with every field of a report's laws that the table has. Raises ConfigError."""
    fields = laws.fields_of_report()
    return points.load_for_report(path, fields, rename=rename, convention=convention)


def draw(
    out: Any,
    title: str,
    path: Any,
    looks: Mapping[str, Look],
    extra: Extra,
    *,
    rename: Mapping[str, str] | None = None,
    convention: str = "exact",
    template: str = "page.html.j2",
    templates: Sequence[Path] = (),
) -> Path:
    """Fits the table at `path`, draws everything into the folder `out`; returns index.html's path.

    `templates`: folders to look for `template` in, before this one.
    """
    table = read(path, rename=rename, convention=convention)
    options = laws.Options(DRAWS, SEED, best_first=True)
    scored = points.with_scoring(path, table, rename=rename, convention=convention)
    view = laws.View(table, looks, options, points.measure(path, rename), convention, scored)
    results, refused = laws.fit_report(table, options)
    sections: dict[str, laws.Section] = {}
    summary: dict[str, Any] = {}
    for name, result in results.items():
        sections |= laws.law(name).sections(result, view)
        summary |= laws.law(name).summary(result)
    summary |= {"refused": refused, "bootstrap": options.bootstrap}
    envelope = {family: _envelope(table.of(family)) for family in table.families()}
    facts = dict(extra.summary) | {
        "convention": convention,
        "envelope": envelope,
        "laws": law_fit.as_json(summary),
    }
    drawn = {name: section.figure for name, section in sections.items() if section.figure}
    pictures = {}
    for name, figure in (drawn | dict(extra.figures)).items():
        files = figures.encoded(figure)
        for kind, data in files.items():
            storage.write_bytes(out / f"{name}.{kind}", data)
        pictures[name] = "data:image/svg+xml;base64," + base64.b64encode(files["svg"]).decode()
    storage.write_bytes(out / "report.json", json.dumps(facts, indent=1, allow_nan=False).encode())
    page = (
        _environment(view, templates)
        .get_template(template)
        .render(
            title=title,
            measure=view.measure,
            convention=convention,
            summary=facts,
            labels={family: look.label for family, look in looks.items()},
            lead=_lead(results, extra.lead, envelope, view),
            sections=sections,
            constants=_constants(results, view),
            lack_of_fit=_lack_of_fit(results, view),
            refused=refused,
            budgets=np.unique(table.budget).tolist(),
            rows=len(table),
            pictures=pictures,
            **extra.shown,
        )
    )
    storage.write_bytes(out / "index.html", page.encode())
    return out / "index.html"


def _environment(view: laws.View, templates: Sequence[Path]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*templates, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "label": view.label,
        "names": view.names,
        "cell": _cell,
        "estimate": lambda estimate: _cell(tables.cell(estimate, without="no interval")),
        "typeset": _typeset,
    }
    return environment


def _cell(cell: str | tables.Cell) -> Markup:
    """A table's cell, its note small."""
    if isinstance(cell, str):
        return Markup(_signs(escape(cell)))
    if not cell.text:
        return Markup("<small>{}</small>").format(cell.note)
    note = Markup(" <small>({})</small>").format(cell.note) if cell.note else Markup("")
    return Markup(_signs(escape(cell.text) + note))


def _signs(text: str) -> str:
    """A dash for nothing, and minus signs instead of hyphens before numbers."""
    return "–" if text == "-" else re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _typeset(text: str) -> Markup:
    """C^b and N_opt of a sentence or a header with the exponent raised, the index lowered."""
    raised = re.sub(r"\^(-?\w+)", r"<sup>\1</sup>", str(escape(text)))
    return Markup(re.sub(r"_opt\b", "<sub>opt</sub>", raised))


def _envelope(own: Points) -> list[dict[str, float | None]]:
    """[{budget, flops, bpb, params}] of one family's best size at each budget, means over seeds."""
    rows = []
    for budget, mask_M in points.best_sizes(own):
        best = own.where(mask_M)
        row: dict[str, float | None] = {"budget": budget, "flops": float(best["flops"].mean())}
        params = float(best["params"].mean()) if "params" in best.values else None
        rows.append(row | {"bpb": float(best["bpb"].mean()), "params": params})
    return rows


def _lead(
    results: Mapping[str, Any],
    begun: Mapping[frozenset[str], Markup],
    envelope: Mapping[str, list[dict[str, float | None]]],
    view: laws.View,
) -> list[Markup]:
    """The page's first paragraphs, one per pair of families, the lower BPB at its last budget
    first.
    """
    order = sorted(envelope, key=lambda family: envelope[family][-1]["bpb"] or 0.0)
    pairs = list(combinations(order, 2))
    if len(pairs) > SHOWN_PAIRS:
        pairs = [pair for pair in pairs if order[0] in pair]
    paragraphs = []
    for a, b in pairs:
        said = [laws.law(name).lead(result, (a, b), view) for name, result in results.items()]
        first = begun.get(frozenset((a, b)))
        if first is None:
            first = Markup("<b>{}</b> against <b>{}</b>:").format(view.label(a), view.label(b))
            said = said if any(said) else [laws.law(name).default_lead for name in results]
        text = Markup(" ").join([first, *(sentence for sentence in said if sentence)])
        paragraphs.append(Markup(_signs(text)))
    return paragraphs


def _constants(results: Mapping[str, Any], view: laws.View) -> tables.Table:
    """Every constant of every law."""
    rows = tuple(
        (law, view.label(family) if family else "all", name, number(value.value), interval(value))
        for own, result in results.items()
        for law, family, name, value in laws.law(own).constants(result)
    )
    return tables.Table("", ("law", "family", "constant", "value", "90% interval"), rows)


def _lack_of_fit(results: Mapping[str, Any], view: laws.View) -> tables.Table:
    """A row for every fit of a law of loss."""
    return tables.lack_of_fit(
        (laws.law(name).title, view.label(family) if family else "all", fit)
        for name, result in results.items()
        for family, fit in laws.law(name).fits(result)
    )
