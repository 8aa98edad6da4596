"""Tables of evaluations: paired intervals, what is compared with what, the study's page; no model
is run.
"""

import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import bootstrap, figures
from blt_jax.scaling.looks import looks
from blt_jax.study import evaluation_figures, evaluation_results, report, results
from tests.scaling.evaluated import evaluate, evaluation
from tests.scaling.test_page import study


@pytest.fixture(scope="module")
def two():
    return {
        "blt": evaluation("patch", 0.95, ["Drop"]),
        "bpe": evaluation("token", 1.0, ["Drop"], seed=1),
    }


def test_differences_are_paired_and_to_the_token_model(two):
    assert (
        evaluation_results.baseline(two) == "bpe"
        and evaluation_results.baseline({"blt": two["blt"]}) == "blt"
    )
    rows = evaluation_results.by_label(two, "lang")
    assert [(value, documents) for value, documents, *_ in rows] in (
        [("x", 20), ("y", 20)],
        [("y", 20), ("x", 20)],
    )
    for _, _, size, of in rows:
        assert of["bpe"].gap is None and of["blt"].gap.high < 0
        assert of["blt"].bytes_per_unit == pytest.approx(4, rel=0.05)
        width = of["blt"].bpb.high - of["blt"].bpb.low
        assert (
            of["blt"].gap.high - of["blt"].gap.low < width / 3
        )  # documents differ, models hardly do
        assert of["bpe"].bits_per_line.value == pytest.approx(of["bpe"].bpb.value * size / 60)
    again = evaluation_results.by_label(two, "lang")
    assert again == rows  # seeded


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        size_D = random.integers(50, 400, 60)
        held += (
            bootstrap.Draws(60, draws=300)
            .estimate(size_D * random.uniform(1, 3, 60), size_D)
            .holds(2.0)
        )
    assert 160 <= held <= 195


def test_noise_is_told_per_clean_byte_and_per_own(two):
    rows = evaluation_results.under_noise(two)
    assert list(rows) == ["clean", "Drop"]
    one = rows["Drop"]["blt"]
    assert one.rise.value == pytest.approx(1.5) and one.bpb.value == pytest.approx(
        2 * one.own.value
    )
    assert one.per_character.value == pytest.approx(2 * one.bpb.value, rel=0.02)
    assert one.gap.high < 0 and abs(one.gap_rise.value) < 1e-9 and rows["Drop"]["bpe"].gap is None
    for documents in (1, 4, 5):
        alone = bootstrap.Draws(documents).estimate(
            np.arange(documents) + 3.0, np.full(documents, 2.0)
        )
        assert alone.value >= 1.5 and (alone.low is None) == (documents < 5)


def test_other_texts_are_no_comparison(two):
    other = json.loads(json.dumps(two))
    other["blt"]["noise"]["bytes"][0] += 1
    with pytest.raises(ConfigError, match="bpe and blt were evaluated on other texts"):
        evaluation_results.under_noise(other)


def test_thresholds_are_compared_with_the_trained_one():
    random = np.random.default_rng(0)
    size_D, bits_D = np.full(20, 50.0), random.uniform(50, 150, 20)
    columns = lambda factor: {
        "bits": (bits_D * factor).tolist(),
        "bytes": size_D.tolist(),
        "units": [9] * 20,
    }
    dial = [
        {"threshold": t, "flops_per_byte": {}} | columns(f) for t, f in ((1.0, 1.01), (1.5, 1.0))
    ]
    found = evaluation_results.along_thresholds(
        {"blt": {"threshold": 1.5, "dial": dial}, "bpe": {"threshold": None}}
    )
    low, trained = found["blt"]
    assert (
        trained.gap is None
        and low.gap.low > 0
        and low.gap.value == pytest.approx(0.01 * trained.bpb.value)
    )
    assert low.bpb.high - low.bpb.low > 10 * (low.gap.high - low.gap.low)


def test_tasks():
    right = np.arange(100) % 4 == 0
    told = {"one": {"unit": "patch"}, "two": {"unit": "token"}}
    told["one"]["tasks"] = {
        "arc": {"documents": {"acc": (right | (np.arange(100) < 20)).astype(float).tolist()}}
    }
    told["two"]["tasks"] = {"arc": {"documents": {"acc": right.astype(float).tolist()}}}
    of = evaluation_results.on_tasks(told)["arc", "acc"]
    assert of["two"].value.value == 0.25 and of["two"].gap is None and of["one"].documents == 100
    figure = evaluation_figures.tasks(
        evaluation_results.on_tasks(told), looks({name: name for name in told})
    )
    assert [axis.get_xlabel() for axis in figure.axes] == ["acc"]
    assert of["one"].gap.value == pytest.approx(0.15) and 0 < of["one"].gap.low < of["one"].gap.high


def test_what_a_study_lacks(tmp_path):
    folder = study(tmp_path)
    _, points, _ = results.load(folder)
    assert list(evaluation_results.missing(folder, points, 1000)) == ["blt", "space", "bpe"]
    evaluate(folder, ("blt", "bpe"))
    assert list(evaluation_results.missing(folder, points, 1000)) == ["space"]
    assert list(evaluation_results.missing(folder, points, 2000)) == [
        "blt",
        "space",
        "bpe",
    ]  # of other text
    assert all(
        asked["budget"] == 6e10
        for _, asked in evaluation_results.missing(folder, points, 2000).values()
    )
    (folder / evaluation_results.FOLDER / "bpe.json").write_text("{}")
    with pytest.raises(ConfigError, match="bpe.json: not an evaluation"):
        report.write(folder)


def test_pictures_of_labels(two):
    own = looks({name: name for name in two})
    figure = evaluation_figures.labels(evaluation_results.by_label(two, "lang"), own, "lang")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] in (
        ["x", "y"],
        ["y", "x"],
    )
    assert figures.encoded(figure)["png"].startswith(b"\x89PNG")
