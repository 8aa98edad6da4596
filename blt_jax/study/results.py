"""Points of a study, and what may be read from them: envelopes, honest comparisons.

Reads run folders only; needs no device.
"""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.runs import run_files
from blt_jax.study.folder import PLAN, run_folder

RESAMPLES = 2000  # of the bootstrap over validation documents


@dataclasses.dataclass(frozen=True)
class Point:
    """One finished run."""

    name: str
    family: str
    size: str
    seed: int
    budget: float
    bpb: float
    result: dict
    cost: dict
    folder: Path

    @property
    def parameters(self):
        return self.cost["parameters"]["non_embedding"]

    def flops(self, convention, entropy_model=False):
        """Training FLOPs spent; with the scoring of its bytes by the entropy model if asked."""
        share = self.result["text_bytes"] / self.cost["bytes"]
        extra = self.cost["entropy_model_flops"][convention] * share if entropy_model else 0.0
        return self.result["train_flops"][convention] + extra


def read_json(path):
    return json.loads(storage.at(path).read_text())


def load(study):
    """(plan, [Point] of finished runs, [names] of the others). Raises ConfigError where there is
    nothing to report.
    """
    study = storage.at(study)
    if not (study / PLAN).exists():
        raise ConfigError(
            f"{study}: no {PLAN} here; give the --workdir of a sweep that has been prepared"
        )
    plan, points, missing = read_json(study / PLAN), [], []
    for run in plan["runs"]:
        folder = run_folder(study, run["name"])
        if not run_files.done(folder):
            missing.append(run["name"])
            continue
        result = run_files.read(folder, run_files.RESULT)
        keys = {key: run[key] for key in ("name", "family", "size", "seed", "budget")}
        points.append(
            Point(
                **keys,
                bpb=result["validation"]["bpb"],
                result=result,
                cost=run["cost"],
                folder=folder,
            )
        )
    if not points:
        raise ConfigError(
            f"{study}: none of its {len(plan['runs'])} runs is done; run the sweep first"
        )
    return plan, points, missing


def mean_over_seeds(points):
    """{(family, size, budget): [Point]}, seeds together."""
    groups = {}
    for point in points:
        groups.setdefault((point.family, point.size, point.budget), []).append(point)
    return groups


def envelope(points, family):
    """[(budget, mean BPB, [Point])]: the family's best size at each budget."""
    best = {}
    for (own, _, budget), group in mean_over_seeds(points).items():
        bpb = float(np.mean([p.bpb for p in group]))
        if own == family and (budget not in best or bpb < best[budget][0]):
            best[budget] = (bpb, group)
    return [(budget, *best[budget]) for budget in sorted(best)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Family `a` (lower mean BPB) against `b` at one budget; `gap` = b - a in BPB."""

    a: str
    b: str
    budget: float
    gap: float
    evaluation: tuple[float, float]  # 95% bootstrap interval of the gap over validation documents
    seeds: tuple[float, float] | None  # 95% interval of the gap over seeds; None with one seed
    claim: bool  # both intervals exclude zero
    words: str


def _documents(group):
    """(nats, text_bytes) by document, mean over the group's seeds."""
    tables = [run_files.read(p.folder, run_files.VALIDATION)["documents"] for p in group]
    return np.mean([t["nats"] for t in tables], axis=0), np.asarray(tables[0]["text_bytes"], float)


def compare(ours, theirs, budget):
    """Comparison of two groups of Points (the best sizes of two families; seeds within a group)."""
    a, b = sorted((ours, theirs), key=lambda group: np.mean([p.bpb for p in group]))
    gap = float(np.mean([p.bpb for p in b]) - np.mean([p.bpb for p in a]))
    (nats_a, size), (nats_b, _) = _documents(a), _documents(b)
    pick = np.random.default_rng(0).integers(0, len(size), (RESAMPLES, len(size)))
    gaps = (nats_b - nats_a)[pick].sum(1) / (math.log(2) * np.maximum(size[pick].sum(1), 1))
    evaluation = tuple(float(q) for q in np.quantile(gaps, (0.025, 0.975)))
    seeds = None
    if min(len(a), len(b)) >= 2:
        spread = [np.var([p.bpb for p in group], ddof=1) / len(group) for group in (a, b)]
        # Student's t with the smaller group's freedom: wider than Welch's, and needs no table.
        half = _T95.get(min(len(a), len(b)) - 1, 2.26) * math.sqrt(sum(spread))
        seeds = (gap - half, gap + half)
    claim = seeds is not None and seeds[0] > 0 and evaluation[0] > 0
    if seeds is None:
        words = "one seed: the noise between runs is not known, so no winner is claimed"
    elif claim:
        words = "better, beyond the noise of seeds and of the validation text"
    else:
        words = "inside the noise: no winner"
    return Comparison(a[0].family, b[0].family, budget, gap, evaluation, seeds, claim, words)


_T95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31}
