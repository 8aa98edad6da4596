"""Tables of evaluations: paired intervals, what is compared with what, the study's page; no model is run."""

import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import curves, evaluation_plots, evaluations, laws, plots, report
from tests.scaling.test_page import read, study

DOCUMENTS = 40


def evaluation(unit, factor, noises=(), seed=0):
    """Of a model whose bits are `factor` times those of documents that differ widely, and half as many per noise."""
    random = np.random.default_rng(0)
    size_D = random.integers(50, 400, DOCUMENTS)
    own = np.random.default_rng([seed, 1]).normal(1, 0.01, DOCUMENTS)
    bits_D = size_D * random.uniform(1, 3, DOCUMENTS) * factor * own
    columns = lambda times, longer=1: {  # noqa: E731
        "bits": (bits_D * times).tolist(),
        "bytes": (size_D * longer).tolist(),
        "units": (size_D * longer // 4).tolist(),
    }
    label = {"source": ["a"] * DOCUMENTS, "lang": ["x", "y"] * (DOCUMENTS // 2), "script": ["latin"] * DOCUMENTS}
    made = {"format": evaluations.FORMAT, "unit": unit, "label": unit, "threshold": 1.5 if unit == "patch" else None}
    made |= {
        "texts": columns(1) | label | {"lines": [3] * DOCUMENTS},
        "flops_per_byte": {"total": 2e4, "model": 1e4, "entropy_model": 1e4},
    }
    characters = {"bytes": size_D.tolist(), "characters": (size_D // 2).tolist(), "seed": 0}
    made["noise"] = characters | {"clean": columns(1)} | {name: columns(1.5, 2) for name in noises}
    return made


@pytest.fixture(scope="module")
def two():
    return {"blt": evaluation("patch", 0.95, ["Drop"]), "bpe": evaluation("token", 1.0, ["Drop"], seed=1)}


def test_differences_are_paired_and_to_the_token_model(two):
    assert evaluations.baseline(two) == "bpe" and evaluations.baseline({"blt": two["blt"]}) == "blt"
    rows = evaluations.by_label(two, "lang")
    assert [(value, documents) for value, documents, *_ in rows] in ([("x", 20), ("y", 20)], [("y", 20), ("x", 20)])
    for _, _, size, of in rows:
        assert of["bpe"].gap is None and of["blt"].gap.high < 0
        assert of["blt"].bytes_per_unit == pytest.approx(4, rel=0.05)
        width = of["blt"].bpb.high - of["blt"].bpb.low
        assert of["blt"].gap.high - of["blt"].gap.low < width / 3  # documents differ, models hardly do
        assert of["bpe"].bits_per_line.value == pytest.approx(of["bpe"].bpb.value * size / 60)
    again = evaluations.by_label(two, "lang")
    assert again == rows  # seeded


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        size_D = random.integers(50, 400, 60)
        held += evaluations.Draws(60, draws=300).estimate(size_D * random.uniform(1, 3, 60), size_D).holds(2.0)
    assert 160 <= held <= 195


def test_noise_is_told_per_clean_byte_and_per_own(two):
    rows = evaluations.under_noise(two)
    assert list(rows) == ["clean", "Drop"]
    one = rows["Drop"]["blt"]
    assert one.rise.value == pytest.approx(1.5) and one.bpb.value == pytest.approx(2 * one.own.value)
    assert one.per_character.value == pytest.approx(2 * one.bpb.value, rel=0.02)
    assert one.gap.high < 0 and abs(one.gap_rise.value) < 1e-9 and rows["Drop"]["bpe"].gap is None
    for documents in (1, 4, 5):
        alone = evaluations.Draws(documents).estimate(np.arange(documents) + 3.0, np.full(documents, 2.0))
        assert alone.value >= 1.5 and (alone.low is None) == (documents < 5)


def test_other_texts_are_no_comparison(two):
    other = json.loads(json.dumps(two))
    other["blt"]["noise"]["bytes"][0] += 1
    with pytest.raises(ConfigError, match="bpe and blt were evaluated on other texts"):
        evaluations.under_noise(other)


def test_tasks():
    right = np.arange(100) % 4 == 0
    told = {"one": {"unit": "patch"}, "two": {"unit": "token"}}
    told["one"]["tasks"] = {"arc": {"documents": {"acc": (right | (np.arange(100) < 20)).astype(float).tolist()}}}
    told["two"]["tasks"] = {"arc": {"documents": {"acc": right.astype(float).tolist()}}}
    of = evaluations.on_tasks(told)["arc", "acc"]
    assert of["two"].value.value == 0.25 and of["two"].gap is None and of["one"].documents == 100
    assert of["one"].gap.value == pytest.approx(0.15) and 0 < of["one"].gap.low < of["one"].gap.high


def test_the_page_shows_noise_and_the_dial(tmp_path, monkeypatch, two):
    monkeypatch.setattr(laws, "DRAWS", 40)
    folder = study(tmp_path)
    _, points, _ = curves.load(folder)
    wanted = evaluations.missing(folder, points, 1000)
    assert list(wanted) == ["blt", "space", "bpe"]
    (folder / evaluations.FOLDER).mkdir()
    for family in ("blt", "bpe"):
        told = two[family] | {"asked": wanted[family][1]}
        if family == "blt":
            turn = {"bits": [90.0, 80.0], "bytes": [40, 50], "units": [9, 11], "flops_per_byte": told["flops_per_byte"]}
            told["dial"] = [{"threshold": at} | turn for at in (1.0, 1.5)]
        (folder / evaluations.FOLDER / f"{family}.json").write_text(json.dumps(told))
    assert list(evaluations.missing(folder, points, 1000)) == ["space"]
    assert list(evaluations.missing(folder, points, 2000)) == ["blt", "space", "bpe"]  # of other text
    page, text, told = read(report.write(folder).parent)
    assert "Under noise" in page and "BLT, entropy patches less BPE tokens" in text and "× 1.500" in text
    assert page.index("Under noise") < page.index("<details>") < page.index("The patch threshold as a dial")
    assert told["evaluations"]["noise"]["Drop"]["blt"]["rise"]["value"] == pytest.approx(1.5)
    assert wanted["blt"][1]["run"] in text and (folder / "report" / "robustness.png").exists()
    (folder / evaluations.FOLDER / "bpe.json").write_text("{}")
    with pytest.raises(ConfigError, match="bpe.json: not an evaluation"):
        report.write(folder)


def test_pictures_of_labels(two):
    looks = plots.looks({name: name for name in two})
    figure = evaluation_plots.labels(evaluations.by_label(two, "lang"), looks, "lang")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] in (["x", "y"], ["y", "x"])
    assert plots.encoded(figure)["png"].startswith(b"\x89PNG")
