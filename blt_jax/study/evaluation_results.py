"""What evaluations of models say, with intervals: by label of a text, under noise, along
thresholds, on tasks.

An evaluation is the JSON that `launch.evaluate` writes of a model, columns by document; it needs no
device. Every model of a comparison read the same documents, which are drawn anew together:
intervals of differences are paired.
"""

import dataclasses
import json

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.scaling.bootstrap import Estimate
from blt_jax.study import results
from blt_jax.study.folder import EVALUATIONS

DRAWS, SEED = 1000, 0
FEWEST = 5  # documents from which on drawing them anew says something
FORMAT = 1
FOLDER = EVALUATIONS  # of a study


def load(path):
    """The evaluation in a file. Raises ConfigError for one that is none."""
    try:
        found = json.loads(storage.at(path).read_text())
        if found["format"] == FORMAT:
            return found
        why = f"format {found['format']}, known is {FORMAT}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise ConfigError(f"{path}: not an evaluation ({why}); delete it and run launch.evaluate again")


def of_study(study, families):
    """{family: evaluation} of a study's families, in their order; none of those that have no
    file.
    """
    files = {family: storage.at(study) / FOLDER / f"{family}.json" for family in families}
    return {family: load(path) for family, path in files.items() if path.exists()}


def wanted(points, noise_bytes, seed=0):
    """{family: (Point, what its evaluation is of)}: its best size at the largest budget that all
    families have reached, else at its own largest.
    """
    of_family = {p.family: results.envelope(points, p.family) for p in points}
    common = set.intersection(*({budget for budget, *_ in own} for own in of_family.values()))
    found = {}
    for family, own in of_family.items():
        budget, _, group = next((one for one in own if common and one[0] == max(common)), own[-1])
        asked = {"run": group[0].name, "budget": budget, "noise_bytes": noise_bytes, "seed": seed}
        found[family] = (group[0], asked)
    return found


def missing(study, points, noise_bytes, seed=0):
    """The part of `wanted` that STUDY/evaluations does not have."""
    found = wanted(points, noise_bytes, seed)
    made = of_study(study, found)
    return {
        family: one
        for family, one in found.items()
        if family not in made or made[family]["asked"] != one[1]
    }


# ---------------------------------------------------------------- intervals


class Draws:
    """The same documents, drawn anew alike for every column that is asked for. Fewer than FEWEST:
    no intervals.
    """

    def __init__(self, documents, draws=DRAWS, seed=SEED):
        random, even = np.random.default_rng(seed), np.full(documents, 1 / documents)
        self._weights_RxD = random.multinomial(
            documents, even, draws if documents >= FEWEST else 0
        ).astype(float)

    def ratio(self, over_D, under_D):
        """(sum over / sum under, its replicates [R])."""
        over_D, under_D = np.asarray(over_D, float), np.asarray(under_D, float)
        return over_D.sum() / under_D.sum(), (self._weights_RxD @ over_D) / (
            self._weights_RxD @ under_D
        )

    def estimate(self, over_D, under_D):
        return bootstrap.estimate(*self.ratio(over_D, under_D))


def combined(function, *ratios):
    """Estimate of a function of `Draws.ratio`s of the same draws."""
    values, replicates = zip(*ratios, strict=True)
    return bootstrap.estimate(function(*values), function(*replicates))


def _same_documents(evaluations, part):
    """Raises ConfigError where models were scored on other documents."""
    sizes = {name: told[part]["bytes"] for name, told in evaluations.items()}
    first = next(iter(sizes))
    for name, own in sizes.items():
        if own != sizes[first]:
            raise ConfigError(
                f"{name} and {first} were evaluated on other texts ({part}): delete the "
                "evaluations and make them again"
            )


def baseline(evaluations):
    """The model that others are compared with: the first that reads tokens, else the first."""
    return next(
        (name for name, one in evaluations.items() if one["unit"] == "token"),
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


def by_label(evaluations, label):
    """[(value, documents, text bytes, {model: Text})] of label `source`, `lang` or `script`, most
    bytes first.
    """
    evaluations = {name: one for name, one in evaluations.items() if "texts" in one}
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


def under_noise(evaluations):
    """{noise or "clean": {model: Noised}} of the models that were evaluated so."""
    evaluations = {name: one for name, one in evaluations.items() if "noise" in one}
    if not evaluations:
        return {}
    _same_documents(evaluations, "noise")
    base = baseline(evaluations)
    told = {name: one["noise"] for name, one in evaluations.items()}
    draws = Draws(len(told[base]["bytes"]))
    size_D, characters_D = told[base]["bytes"], told[base]["characters"]
    bpb = lambda name, noise: draws.ratio(told[name][noise]["bits"], size_D)
    rise = lambda name, noise: draws.ratio(told[name][noise]["bits"], told[name]["clean"]["bits"])
    rows = {}
    for noise in (key for key, value in told[base].items() if isinstance(value, dict)):
        rows[noise] = {}
        for name in (name for name in told if noise in told[name]):
            bits_D = told[name][noise]["bits"]
            other = name != base and noise in told[base]
            rows[noise][name] = Noised(
                bpb=bootstrap.estimate(*bpb(name, noise)),
                per_character=draws.estimate(bits_D, characters_D),
                own=draws.estimate(bits_D, told[name][noise]["bytes"]),
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
    flops: dict  # forward, per byte, exact: model, entropy_model, total


def along_thresholds(evaluations):
    """{model: [Turned]} of the models that have a dial, by threshold."""
    found = {}
    for name, one in evaluations.items():
        dial = one.get("dial", ())
        trained = next((at for at in dial if at["threshold"] == one["threshold"]), None)
        for at in dial:
            draws = Draws(len(at["bytes"]))
            bpb, gap = draws.ratio(at["bits"], at["bytes"]), None
            if trained and at is not trained:
                gap = combined(np.subtract, bpb, draws.ratio(trained["bits"], trained["bytes"]))
            per_unit = sum(at["bytes"]) / max(sum(at["units"]), 1)
            turned = Turned(
                at["threshold"], bootstrap.estimate(*bpb), gap, per_unit, at["flops_per_byte"]
            )
            found.setdefault(name, []).append(turned)
    return found


def beside_dials(evaluations):
    """{model: (FLOPs per byte, BPB)} of the models without a dial."""
    plain = {name: one for name, one in evaluations.items() if "dial" not in one and "texts" in one}
    bpb = lambda columns: sum(columns["bits"]) / sum(columns["bytes"])
    return {
        name: (one["flops_per_byte"]["total"], bpb(one["texts"])) for name, one in plain.items()
    }


@dataclasses.dataclass(frozen=True)
class Score:
    """Mean of a metric over a task's documents; `gap`: less the baseline's, None for itself."""

    value: Estimate
    documents: int
    gap: Estimate | None


def on_tasks(evaluations):
    """{(task, metric): {model: Score}}; metrics are numbers by document, their mean is the
    score.
    """
    base, rows = baseline(evaluations), {}
    for name, one in evaluations.items():
        for task, told in one.get("tasks", {}).items():
            theirs = evaluations[base].get("tasks", {}).get(task, {"documents": {}})["documents"]
            for metric, values_D in told["documents"].items():
                draws, ones_D = Draws(len(values_D)), np.ones(len(values_D))
                ours, gap = draws.ratio(values_D, ones_D), None
                if name != base and len(theirs.get(metric, ())) == len(values_D):
                    gap = combined(np.subtract, ours, draws.ratio(theirs[metric], ones_D))
                rows.setdefault((task, metric), {})[name] = Score(
                    bootstrap.estimate(*ours), len(values_D), gap
                )
    return rows
