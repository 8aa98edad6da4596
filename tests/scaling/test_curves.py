"""What may be read from points: envelopes, and claims that stay inside the noise."""

import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap
from blt_jax.study import results


def point(folder, family, bpb, size="s", budget=1e10, seed=0, parameters=100, noise=0.0):
    path = folder / f"{family}-{size}-{budget}-{seed}"
    path.mkdir()
    rng = np.random.default_rng(1)
    text_bytes = rng.integers(100, 200, 40)
    nats = (
        text_bytes
        * np.log(2)
        * (bpb + noise * np.random.default_rng(hash_of(family)).normal(size=40))
    )
    table = {"source": ["x"] * 40, "nats": nats.tolist(), "text_bytes": text_bytes.tolist()}
    (path / "validation.json").write_text(json.dumps({"documents": table}))
    cost = {"parameters": {"non_embedding": parameters}}
    return results.Point(path.name, family, size, seed, budget, bpb, {}, cost, path)


def hash_of(text):
    return sum(map(ord, text))


def test_envelope_takes_the_best_size_of_each_budget(tmp_path):
    points = [
        point(tmp_path, "a", bpb, size, budget)
        for size, budget, bpb in (
            ("s", 1e10, 3.0),
            ("l", 1e10, 3.2),
            ("s", 1e11, 2.5),
            ("l", 1e11, 2.4),
        )
    ]
    found = results.envelope(points, "a")
    assert [(budget, bpb, group[0].size) for budget, bpb, group in found] == [
        (1e10, 3.0, "s"),
        (1e11, 2.4, "l"),
    ]


def test_one_seed_claims_nothing(tmp_path):
    a, b = [point(tmp_path, "a", 2.0)], [point(tmp_path, "b", 3.0)]
    found = results.compare(a, b, 1e10)
    assert found.gap == 1.0 and found.a == "a" and not found.claim and "one seed" in found.words


def seeds(folder, family, values):
    return [point(folder, family, bpb, seed=i, noise=0.02) for i, bpb in enumerate(values)]


def test_a_clear_gap_over_seeds_is_claimed(tmp_path):
    found = results.compare(
        seeds(tmp_path, "a", [2.0, 2.01, 1.99]), seeds(tmp_path, "b", [2.5, 2.51, 2.49]), 1e10
    )
    assert found.claim and found.seeds[0] > 0.4 and found.evaluation[0] > 0.4


def test_a_gap_inside_the_noise_is_not(tmp_path):
    found = results.compare(
        seeds(tmp_path, "a", [2.0, 2.3, 1.7]), seeds(tmp_path, "b", [2.1, 2.4, 1.8]), 1e10
    )
    assert not found.claim and "inside the noise" in found.words


def test_intervals_are_those_of_every_other_table(tmp_path):
    """90%, over seeds by Student's t with the smaller group's freedom: 2.920 for three seeds."""
    found = results.compare(
        seeds(tmp_path, "a", [2.0, 2.01, 1.99]), seeds(tmp_path, "b", [2.5, 2.51, 2.49]), 1e10
    )
    half = 2.91999 * np.sqrt(2 * 0.01**2 / 3)
    assert found.seeds == pytest.approx((found.gap - half, found.gap + half), rel=1e-5)
    nats, size = {}, None
    for family in "ab":
        files = [path / "validation.json" for path in sorted(tmp_path.glob(f"{family}-*"))]
        columns = [json.loads(path.read_text())["documents"] for path in files]
        nats[family], size = np.mean([c["nats"] for c in columns], 0), columns[0]["text_bytes"]
    estimate = bootstrap.Draws(40).estimate((nats["b"] - nats["a"]) / np.log(2), size)
    assert found.evaluation == (estimate.low, estimate.high)


def test_too_few_documents_have_no_interval(tmp_path):
    pairs = seeds(tmp_path, "a", [2.0, 2.01]), seeds(tmp_path, "b", [2.5, 2.51])
    for point in (*pairs[0], *pairs[1]):
        path = point.folder / "validation.json"
        columns = json.loads(path.read_text())["documents"]
        path.write_text(json.dumps({"documents": {k: v[:4] for k, v in columns.items()}}))
    found = results.compare(*pairs, 1e10)
    assert found.evaluation is None and found.seeds[0] > 0 and not found.claim


def test_an_empty_study_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no plan.json"):
        results.load(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"runs": [{"name": "x"}]}))
    with pytest.raises(ConfigError, match="none of its 1 runs is done"):
        results.load(tmp_path)
