"""Points of a study, and what may be read from them: envelopes, honest comparisons.

Reads run folders only; needs no device.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.runs import run_files
from blt_jax.scaling import bootstrap
from blt_jax.study.folder import PLAN, run_folder


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
    def parameters(self) -> int:
        """Without embeddings and hash tables."""
        return self.cost["parameters"]["non_embedding"]

    def flops(self, convention: str, entropy_model: bool = False) -> float:
        """Training FLOPs spent; with the scoring of its bytes by the entropy model if asked."""
        share = self.result["text_bytes"] / self.cost["bytes"]
        extra = self.cost["entropy_model_flops"][convention] * share if entropy_model else 0.0
        return self.result["train_flops"][convention] + extra


def read_json(path: Path | str) -> Any:
    return json.loads(storage.at(path).read_text())


def load(study: Path | str) -> tuple[dict[str, Any], list[Point], list[str]]:
    """(plan, finished runs, names of the others). Raises ConfigError where there is nothing to
    report.
    """
    folder = storage.at(study)
    if not (folder / PLAN).exists():
        raise ConfigError(
            f"{folder}: no {PLAN} here; give the --workdir of a sweep that has been prepared"
        )
    plan = read_json(folder / PLAN)
    points, missing = [], []
    for run in plan["runs"]:
        own = run_folder(folder, run["name"])
        if not run_files.done(own):
            missing.append(run["name"])
            continue
        result = run_files.read(own, run_files.RESULT)
        keys = {key: run[key] for key in ("name", "family", "size", "seed", "budget")}
        points.append(
            Point(
                **keys,
                bpb=result["validation"]["bpb"],
                result=result,
                cost=run["cost"],
                folder=own,
            )
        )
    if not points:
        raise ConfigError(
            f"{folder}: none of its {len(plan['runs'])} runs is done; run the sweep first"
        )
    return plan, points, missing


def groups_of_seeds(points: Sequence[Point]) -> dict[tuple[str, str, float], list[Point]]:
    """{(family, size, budget): [Point]}, seeds together."""
    groups: dict[tuple[str, str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.family, point.size, point.budget), []).append(point)
    return groups


def envelope(points: Sequence[Point], family: str) -> list[tuple[float, float, list[Point]]]:
    """[(budget, mean BPB, [Point])]: the family's best size at each budget."""
    best: dict[float, tuple[float, list[Point]]] = {}
    for (own, _, budget), group in groups_of_seeds(points).items():
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
    # 90% intervals of the gap: over validation documents (None with too few), and over seeds (None
    # with one)
    evaluation: tuple[float, float] | None
    seeds: tuple[float, float] | None
    claim: bool  # both intervals exclude zero
    words: str


def _documents(group: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """(nats, text_bytes) by document, mean over the group's seeds."""
    tables = [run_files.read(p.folder, run_files.VALIDATION)["documents"] for p in group]
    return np.mean([t["nats"] for t in tables], axis=0), np.asarray(tables[0]["text_bytes"], float)


def compare(ours: Sequence[Point], theirs: Sequence[Point], budget: float) -> Comparison:
    """Comparison of two groups of Points (the best sizes of two families; seeds within a group)."""
    a, b = sorted((ours, theirs), key=lambda group: np.mean([p.bpb for p in group]))
    gap = float(np.mean([p.bpb for p in b]) - np.mean([p.bpb for p in a]))
    (nats_a, size), (nats_b, _) = _documents(a), _documents(b)
    over_documents = bootstrap.Draws(len(size)).estimate((nats_b - nats_a) / math.log(2), size)
    evaluation = seeds = None
    if over_documents.low is not None and over_documents.high is not None:
        evaluation = (over_documents.low, over_documents.high)
    if min(len(a), len(b)) >= 2:
        from scipy import stats  # takes longer to import than all else here

        variance = sum(np.var([p.bpb for p in group], ddof=1) / len(group) for group in (a, b))
        # Student's t with the smaller group's freedom: wider than Welch's.
        t = stats.t.ppf((1 + bootstrap.LEVEL) / 2, min(len(a), len(b)) - 1)
        half = float(t * math.sqrt(variance))
        seeds = (gap - half, gap + half)
    claim = all(known is not None and known[0] > 0 for known in (seeds, evaluation))
    if seeds is None:
        words = "one seed: the noise between runs is not known, so no winner is claimed"
    elif claim:
        words = "better, beyond the noise of seeds and of the validation text"
    else:
        words = "inside the noise: no winner"
    return Comparison(a[0].family, b[0].family, budget, gap, evaluation, seeds, claim, words)
