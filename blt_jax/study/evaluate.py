"""Makes evaluations: of a model, and of a study's families by their best runs. `launch.evaluate` is
their command.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blt_jax import facade, storage
from blt_jax.config import ConfigError
from blt_jax.data.store import Store
from blt_jax.eval import noise, tasks, texts
from blt_jax.facade import Model
from blt_jax.flops import analytic
from blt_jax.record import build
from blt_jax.storage import write_json
from blt_jax.study import evaluation_results, results
from blt_jax.study import folder as study_folder
from blt_jax.study.config import Study
from blt_jax.study.progress import SILENT, Progress

Evaluation = dict[str, Any]  # JSON values; its parts: `evaluation_results`

# bytes at least of a validation document that a study's evaluation reads, so that it reads many
PIECE = 2048
AUTO = "auto"  # patch thresholds that the texts suggest
BROKEN = "".join(map(chr, range(0xDC80, 0xDD00)))  # what a cut leaves of a character, as surrogates


# ---------------------------------------------------------------- a model


def load_all(folders: Sequence[str]) -> dict[str, Model]:
    """{name: Model}: the folder's name, or its path where two have the same."""
    names = [Path(folder).name for folder in folders]
    return {
        folder if names.count(name) > 1 else name: facade.load(folder)
        for folder, name in zip(folders, names, strict=True)
    }


def parse_thresholds(text: str) -> str | list[float]:
    """`auto`, "" or the sorted numbers of a comma list, in nats. Raises ConfigError."""
    if text in ("", AUTO):
        return text
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"thresholds = {text!r}: must be {AUTO}, or nats with commas between"
        ) from None


def facts(model: Model, label: str) -> Evaluation:
    """What an evaluation says of its model."""
    patching = model.patching
    return {
        "format": evaluation_results.FORMAT,
        "label": label,
        "model": str(model.folder),
        "unit": model.config.unit,
        "parameters": analytic.parameters(model.config)["non_embedding"],
        "context": model.context,
        "threshold": patching.threshold if patching and patching.has_threshold else None,
    }


def of_texts(
    model: Model,
    documents: Sequence[texts.Text],
    noises: Sequence[str] = (),
    thresholds: str | Sequence[float] = (),
    seed: int = 0,
    progress: Progress = SILENT,
) -> Evaluation:
    """The parts "texts", "noise" and "dial" (along thresholds) of an evaluation of `documents`."""
    data = [document.data for document in documents]
    parts: Evaluation = {}
    label = model.folder.name
    tell = progress.task(label)
    if noises:
        parts["noise"] = texts.robustness(model, data, noises, seed, tell)
        columns = parts["noise"]["clean"]
    else:
        columns = texts.measure(model, data, tell)
    parts["texts"] = (
        columns
        | {"lines": [texts.lines(text) for text in data]}
        | {name: [document.labels[name] for document in documents] for name in texts.LABELS}
    )
    parts["flops_per_byte"] = texts.flops_per_byte(model, columns)
    solvable = model.patching is not None and model.patching.has_threshold
    if thresholds and solvable and parts["flops_per_byte"]["entropy_model"]:
        if thresholds == AUTO:
            thresholds = texts.thresholds(model, data)
        tell = progress.task(f"{label}, thresholds")
        parts["dial"] = texts.threshold_sweep(
            model, data, [float(value) for value in thresholds], tell
        )
    return parts


def of_tasks(
    model: Model,
    requested: dict[str, Any],
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> Evaluation:
    """The parts "tasks" and "places" of an evaluation. `requested`: see `eval.tasks.requested`;
    `options`: see `harness.run`.
    """
    from blt_jax.eval import harness

    tell = progress.task(f"{model.folder.name}, tasks")
    return tasks.averaged(harness.run(model, requested, seed=seed, progress=tell, **options))


# ---------------------------------------------------------------- a study


def validation(folder: Path, most: int) -> list[texts.Text]:
    """The beginnings of validation documents, of about equal length, `most` bytes in all. Raises
    ConfigError where there is none.
    """
    store, documents, size = Store(folder / study_folder.STORE, "validation"), [], 0
    piece = min(most, max(PIECE, most // len(store)))
    for i in range(len(store)):
        whole, source = store.document(i)
        text = whole[:piece].decode("utf-8", "surrogateescape").rstrip(BROKEN)
        data = text.encode("utf-8", "surrogateescape")
        if data and size + len(data) <= most:
            labels = {"source": source, "lang": "", "script": texts.script_of(data)}
            documents.append(texts.Text(data, labels))
            size += len(data)
    if not documents:
        raise ConfigError(
            f"{folder / study_folder.STORE}: no validation text within noise_bytes = {most:,}"
        )
    return documents


def of_study(
    folder: str | os.PathLike[str],
    seed: int = 0,
    requested: dict[str, Any] | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> None:
    """Makes STUDY/evaluations/FAMILY.json where it is not there, or of another run or text; adds
    the `requested` tasks.

    Raises ConfigError for a study without runs, or whose config leaves nothing to read.
    """
    study = storage.at(folder)
    plan, points, _ = results.load(study)
    most = build(Study, results.read_json(study / study_folder.STUDY)["study"]).noise_bytes
    if not most:
        raise ConfigError(f"{study}: its config says noise_bytes = 0, which leaves nothing to read")
    missing = evaluation_results.missing(study, points, most, seed)
    documents = validation(study, most) if missing else ()
    for family, (point, wanted) in evaluation_results.wanted(points, most, seed).items():
        if family not in missing and not requested:
            continue
        model = facade.load(point.folder)
        path = study / evaluation_results.FOLDER / f"{family}.json"
        if family in missing:
            evaluation = facts(model, plan["facts"][family]["label"])
            evaluation |= {"family": family, "asked": wanted}
            evaluation |= of_texts(model, documents, list(noise.NOISES), AUTO, seed, progress)
        else:
            evaluation = evaluation_results.load(path)
        if requested:
            parts = of_tasks(model, requested, seed, progress, **options)
            evaluation |= {part: evaluation.get(part, {}) | parts[part] for part in parts}
        storage.make_folder(path.parent)
        write_json(path, evaluation)


# ---------------------------------------------------------------- pictures


def write_pictures(evaluations: Mapping[str, Evaluation], folder: Path) -> list[str]:
    """The figures of evaluations {name: evaluation}, as SVG and PNG in `folder`; returns their
    names.
    """
    from blt_jax.scaling import figures  # matplotlib takes long to import
    from blt_jax.scaling.looks import looks as looks_by_label
    from blt_jax.study import evaluation_figures

    looks = looks_by_label({name: one["label"] for name, one in evaluations.items()})
    drawn = {}
    for label in texts.LABELS:
        rows = evaluation_results.by_label(evaluations, label)
        if len(rows) > 1:
            drawn[label] = evaluation_figures.labels(rows, looks, label)
    noised = evaluation_results.under_noise(evaluations)
    if noised:
        drawn["noise"] = evaluation_figures.noises(noised, looks)
    dials = evaluation_results.along_thresholds(evaluations)
    if dials:
        drawn["thresholds"] = evaluation_figures.threshold_sweeps(
            dials, looks, evaluation_results.without_threshold(evaluations)
        )
    scores = evaluation_results.on_tasks(evaluations)
    if scores:
        drawn["tasks"] = evaluation_figures.tasks(scores, looks)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        for kind, data in figures.encoded(figure).items():
            (folder / f"{name}.{kind}").write_bytes(data)
    return list(drawn)
