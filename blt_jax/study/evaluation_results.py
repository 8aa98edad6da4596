"""What evaluations of models say, with intervals: by label of a text, under noise, along
thresholds, on tasks.

An evaluation is the JSON that `launch.evaluate` writes of a model, columns by document; it needs no
device. Every model of a comparison read the same documents, which are drawn anew together:
intervals of differences are paired.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.scaling.bootstrap import Draws, Estimate, combined
from blt_jax.study import results
from blt_jax.study.folder import EVALUATIONS
from blt_jax.study.results import Point

FORMAT = 1
FOLDER = EVALUATIONS  # of a study

Evaluation = dict[str, Any]
Request = dict[str, Any]  # what an evaluation is of: run, budget, noise_bytes, seed


def load(path: Path | str) -> Evaluation:
    """The evaluation in a file. Raises ConfigError for one that is none."""
    try:
        evaluation = json.loads(storage.at(path).read_text())
        if evaluation["format"] == FORMAT:
            return evaluation
        why = f"format {evaluation['format']}, known is {FORMAT}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise ConfigError(f"{path}: not an evaluation ({why}); delete it and run launch.evaluate again")


def of_study(study: Path | str, families: Iterable[str]) -> dict[str, Evaluation]:
    """{family: evaluation} of a study's families that have one, in their order."""
    files = {family: storage.at(study) / FOLDER / f"{family}.json" for family in families}
    return {family: load(path) for family, path in files.items() if path.exists()}


def wanted(
    points: Sequence[Point], noise_bytes: int, seed: int = 0
) -> dict[str, tuple[Point, Request]]:
    """{family: (Point, what its evaluation is of)}: its best size at the largest budget that all
    families have reached, else at its own largest.
    """
    of_family = {p.family: results.envelope(points, p.family) for p in points}
    common = set.intersection(*({budget for budget, *_ in own} for own in of_family.values()))
    requests = {}
    for family, own in of_family.items():
        budget, _, group = next(
            (best for best in own if common and best[0] == max(common)), own[-1]
        )
        request = {"run": group[0].name, "budget": budget, "noise_bytes": noise_bytes, "seed": seed}
        requests[family] = (group[0], request)
    return requests


def missing(
    study: Path | str, points: Sequence[Point], noise_bytes: int, seed: int = 0
) -> dict[str, tuple[Point, Request]]:
    """The part of `wanted` that STUDY/evaluations does not have."""
    requests = wanted(points, noise_bytes, seed)
    made = of_study(study, requests)
    return {
        family: (point, request)
        for family, (point, request) in requests.items()
        if family not in made or made[family]["asked"] != request
    }


def _same_documents(evaluations: Mapping[str, Evaluation], part: str) -> None:
    """Raises ConfigError where models were scored on other documents."""
    sizes = {name: own[part]["bytes"] for name, own in evaluations.items()}
    first = next(iter(sizes))
    for name, own in sizes.items():
        if own != sizes[first]:
            raise ConfigError(
                f"{name} and {first} were evaluated on other texts ({part}): delete the "
                "evaluations and make them again"
            )


def baseline(evaluations: Mapping[str, Evaluation]) -> str:
    """The model that others are compared with: the first that reads tokens, else the first."""
    return next(
        (name for name, own in evaluations.items() if own["unit"] == "token"),
        next(iter(evaluations)),
    )


# ---------------------------------------------------------------- rows


@dataclasses.dataclass(frozen=True)
class Text:
    """One model on the texts of one label. `gap`: BPB less the baseline's; None for the baseline
    itself.

    Lines, of parallel text often sentences, say the same in each language: bits per line compare
    languages.
    """

    bpb: Estimate
    bytes_per_unit: float
    bits_per_line: Estimate
    gap: Estimate | None


def by_label(
    evaluations: Mapping[str, Evaluation], label: str
) -> list[tuple[str, int, int, dict[str, Text]]]:
    """[(value, documents, text bytes, {model: Text})] of label `source`, `lang` or `script`, most
    bytes first.
    """
    evaluations = {name: own for name, own in evaluations.items() if "texts" in own}
    if not evaluations:
        return []
    _same_documents(evaluations, "texts")
    base = baseline(evaluations)
    values = np.array(next(iter(evaluations.values()))["texts"][label])
    size_D = np.array(evaluations[base]["texts"]["bytes"])
    rows = []
    for value in sorted(set(values.tolist()), key=lambda value: -size_D[values == value].sum()):
        mask_D = values == value
        draws, of = Draws(int(mask_D.sum())), {}
        column = lambda name, key, mask_D=mask_D: np.array(evaluations[name]["texts"][key], float)[
            mask_D
        ]
        theirs = draws.ratio(column(base, "bits"), size_D[mask_D])
        for name in evaluations:
            ours = draws.ratio(column(name, "bits"), size_D[mask_D])
            gap = combined(np.subtract, ours, theirs) if name != base else None
            per_line = draws.estimate(column(name, "bits"), column(name, "lines"))
            per_unit = size_D[mask_D].sum() / max(column(name, "units").sum(), 1)
            of[name] = Text(bootstrap.estimate(*ours), float(per_unit), per_line, gap)
        rows.append((value or "-", int(mask_D.sum()), int(size_D[mask_D].sum()), of))
    return rows


@dataclasses.dataclass(frozen=True)
class Noised:
    """One model under one noise. `bpb`, `per_character`: bits over bytes, characters of the clean
    text; `own`: over bytes of what was read; `rise`: of bpb against the clean text's, a factor;
    `gap`, `gap_rise`: less the baseline's.
    """

    bpb: Estimate
    per_character: Estimate
    own: Estimate
    rise: Estimate
    gap: Estimate | None
    gap_rise: Estimate | None


def under_noise(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, Noised]]:
    """{noise or "clean": {model: Noised}} of the models that were evaluated so."""
    evaluations = {name: own for name, own in evaluations.items() if "noise" in own}
    if not evaluations:
        return {}
    _same_documents(evaluations, "noise")
    base = baseline(evaluations)
    noised = {name: own["noise"] for name, own in evaluations.items()}
    draws = Draws(len(noised[base]["bytes"]))
    size_D, characters_D = noised[base]["bytes"], noised[base]["characters"]
    bpb = lambda name, noise: draws.ratio(noised[name][noise]["bits"], size_D)
    rise = lambda name, noise: draws.ratio(
        noised[name][noise]["bits"], noised[name]["clean"]["bits"]
    )
    rows: dict[str, dict[str, Noised]] = {}
    for noise in (key for key, value in noised[base].items() if isinstance(value, dict)):
        rows[noise] = {}
        for name in (name for name in noised if noise in noised[name]):
            bits_D = noised[name][noise]["bits"]
            other = name != base and noise in noised[base]
            rows[noise][name] = Noised(
                bpb=bootstrap.estimate(*bpb(name, noise)),
                per_character=draws.estimate(bits_D, characters_D),
                own=draws.estimate(bits_D, noised[name][noise]["bytes"]),
                rise=bootstrap.estimate(*rise(name, noise)),
                gap=combined(np.subtract, bpb(name, noise), bpb(base, noise)) if other else None,
                gap_rise=combined(np.subtract, rise(name, noise), rise(base, noise))
                if other
                else None,
            )
    return rows


@dataclasses.dataclass(frozen=True)
class Turned:
    """A model at a threshold. `gap`: BPB less that at the trained threshold, on the same documents;
    None there.
    """

    threshold: float
    bpb: Estimate
    gap: Estimate | None
    bytes_per_unit: float
    flops: dict[str, float]  # forward, per byte, exact: model, entropy_model, total


def along_thresholds(evaluations: Mapping[str, Evaluation]) -> dict[str, list[Turned]]:
    """{model: [Turned]} of the models whose patches follow a threshold, by threshold."""
    sweeps: dict[str, list[Turned]] = {}
    for name, evaluation in evaluations.items():
        sweep = evaluation.get("dial", ())
        trained = next((at for at in sweep if at["threshold"] == evaluation["threshold"]), None)
        for at in sweep:
            draws = Draws(len(at["bytes"]))
            bpb, gap = draws.ratio(at["bits"], at["bytes"]), None
            if trained and at is not trained:
                gap = combined(np.subtract, bpb, draws.ratio(trained["bits"], trained["bytes"]))
            per_unit = sum(at["bytes"]) / max(sum(at["units"]), 1)
            turned = Turned(
                at["threshold"], bootstrap.estimate(*bpb), gap, per_unit, at["flops_per_byte"]
            )
            sweeps.setdefault(name, []).append(turned)
    return sweeps


def without_threshold(evaluations: Mapping[str, Evaluation]) -> dict[str, tuple[float, float]]:
    """{model: (FLOPs per byte, BPB)} of the models whose patches follow none."""
    plain = {name: own for name, own in evaluations.items() if "dial" not in own and "texts" in own}
    bpb = lambda columns: sum(columns["bits"]) / sum(columns["bytes"])
    return {
        name: (own["flops_per_byte"]["total"], bpb(own["texts"])) for name, own in plain.items()
    }


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean of a metric over a task's documents; `gap`: less the baseline's, None for itself."""

    value: Estimate
    documents: int
    gap: Estimate | None


def on_tasks(
    evaluations: Mapping[str, Evaluation],
) -> dict[tuple[str, str], dict[str, Score]]:
    """{(task, metric): {model: Score}}: the mean of a metric over documents."""
    base = baseline(evaluations)
    rows: dict[tuple[str, str], dict[str, Score]] = {}
    for name, evaluation in evaluations.items():
        for task, own in evaluation.get("tasks", {}).items():
            theirs = evaluations[base].get("tasks", {}).get(task, {"documents": {}})["documents"]
            for metric, values_D in own["documents"].items():
                draws, ones_D = Draws(len(values_D)), np.ones(len(values_D))
                ours, gap = draws.ratio(values_D, ones_D), None
                if name != base and len(theirs.get(metric, ())) == len(values_D):
                    gap = combined(np.subtract, ours, draws.ratio(theirs[metric], ones_D))
                rows.setdefault((task, metric), {})[name] = Score(
                    bootstrap.estimate(*ours), len(values_D), gap
                )
    return rows
