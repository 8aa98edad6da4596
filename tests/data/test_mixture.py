"""Weights by source: who is read how often, in which order, and that the books are right."""

import dataclasses

import numpy as np
import pytest

from blt_jax.config import ConfigError, Data
from blt_jax.data import pack, pipeline
from blt_jax.data.mixture import PASSES, reading_order
from blt_jax.patching import Patching, calibrate
from blt_jax.record import build, fingerprint
from blt_jax.storage import write_json
from blt_jax.study import prepare
from tests.data.corpus import made, space_starts

WEIGHTS = {"word2": 2.0, "word5": 0.5, "odd": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("store"), count=120)


def readings(store, weights):
    """(readings of each document, passes)."""
    order, passes = reading_order(store, weights)
    return np.bincount(order, minlength=len(store)), passes


def of(store, source):
    return store.source_of == store.source_names.index(source)


def test_without_weights_every_document_once_in_the_stores_order(store):
    order, passes = reading_order(store)
    assert passes == 1 and np.array_equal(order, np.arange(len(store)))
    assert np.array_equal(reading_order(store, {"word2": 1.0})[0], order)


def test_whole_numbers_of_readings_are_exact(store):
    count, passes = readings(store, WEIGHTS)
    assert passes == 2
    for source, times in {"word2": 4, "word5": 1, "odd": 0, "word12": 2}.items():
        assert set(count[of(store, source)]) == {times}, source


@pytest.mark.parametrize("weight", [0.01, 0.3, 1.37, 5.9])
def test_fractions_are_spread_over_the_documents(store, weight):
    count, passes = readings(store, {"word2": weight})
    own = count[of(store, "word2")]
    assert passes <= PASSES and own.max() - own.min() <= 1
    assert abs(own.sum() - passes * weight * len(own)) <= 2  # golden ratio phases: no clumps
    assert set(count[of(store, "word5")]) == {passes}


def test_readings_of_a_document_lie_apart(store):
    order, _ = reading_order(store, {"word2": 4.0})
    for document in np.flatnonzero(of(store, "word2")):
        assert np.diff(np.flatnonzero(order == document)).min() > len(order) / 4 * 0.6


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"word21": 2.0}, "no documents of source 'word21'; did you mean 'word2'"),
        ({"q": 1.0}, "no documents of source 'q'; known: odd, word12, word2, word5"),
        ({name: 0.0 for name in ("odd", "word2", "word5", "word12")}, "every source has weight 0"),
    ],
)
def test_what_is_refused(store, weights, message):
    with pytest.raises(ConfigError, match=message):
        reading_order(store, weights)


# ---------------------------------------------------------------- in a config


def test_weights_in_a_config():
    data = Data(weights=" a=2 , b.c=0.5,d=x=1e-1,")
    assert data.source_weights == {"a": 2.0, "b.c": 0.5, "d=x": 0.1}
    assert data.weights == "a=2,b.c=0.5,d=x=1e-1" and Data().source_weights == {}
    assert (
        fingerprint(Data()) != fingerprint(data) and build(Data, dataclasses.asdict(data)) == data
    )
    for text, message in {
        "a": "write each",
        "=1": "write each",
        "a=1,a=2": "once",
        "a=b": "'b' is not a number",
    }.items():
        with pytest.raises(ConfigError, match=f"data.weights = .*{message}"):
            Data(weights=text)
    for text in ("a=-1", "a=nan", "a=inf"):
        with pytest.raises(ConfigError, match="data.weights"):
            Data(weights=text)


# ---------------------------------------------------------------- in an index


@pytest.fixture(scope="module")
def index(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "train"
    pack.build_index(store, out, positions=256, starts_of=space_starts(store), weights=WEIGHTS)
    return out


def positions_read(store, spans):
    return np.bincount(spans[:, 0], weights=spans[:, 2] - spans[:, 1], minlength=len(store))


def test_index_reads_each_document_as_often_as_its_weight_says(store, index):
    header, (_, spans) = pack.load_header(index), pipeline.span_table(index)
    count, passes = readings(store, WEIGHTS)
    assert (
        np.array_equal(positions_read(store, spans), count * (store.sizes + 2))
        and header["passes"] == passes
    )
    whole = {source: int(store.sizes[of(store, source)].sum()) for source in store.source_names}
    text = {
        "word2": 4 * whole["word2"],
        "word5": whole["word5"],
        "word12": 2 * whole["word12"],
        "odd": 0,
    }
    for source, told in header["sources"].items():
        assert told["text_bytes"] == text[source]
        assert told["share"] == pytest.approx(text[source] / sum(text.values()))
        assert told["readings"] == pytest.approx(
            {"word2": 4, "word5": 1, "word12": 2, "odd": 0}[source]
        )
    assert header["text_bytes"] == sum(text.values())
    assert header["text_bytes_per_patch"] == header["text_bytes"] / header["patches"]
    assert (
        header["byte_waste"] < 0.05 and header["patch_waste"] < 0.05
    )  # dense and sparse still share rows


def test_other_weights_make_another_index(store, tmp_path):
    build_with = lambda weights: pack.build_index(
        store, tmp_path / "rows", positions=256, weights=weights
    )
    plain = build_with(None)
    assert (
        build_with({}) == plain and build_with({"word2": 3.0})["text_bytes"] > plain["text_bytes"]
    )


@pytest.mark.parametrize("steps", [3, 40, 100])
def test_sources_read_counts_what_batches_hold(store, index, steps, monkeypatch):
    batches = pipeline.train_batches(index, store, 4, seed=3)
    source_of_row = []
    offsets, spans = pipeline.span_table(index)
    order = [
        n
        for s in range(steps)
        for n in pipeline._row_order(len(offsets) - 1, 3).batch(4)[s].tolist()
    ]
    for number in order:
        source_of_row += spans[offsets[number] : offsets[number + 1]].tolist()
    read = positions_read(store, np.array(source_of_row))
    assert sum(int((batches[s]["segment_BxL"] > 0).sum()) for s in range(steps)) == read.sum()
    told = pipeline.sources_read(index, store, 4, 3, steps)
    for source, one in told.items():
        own = of(store, source)
        assert one["epochs"] == pytest.approx(read[own].sum() / (store.sizes[own] + 2).sum())
    assert (
        sum(one["share"] for one in told.values()) == pytest.approx(1) and told["odd"]["share"] == 0
    )
    monkeypatch.setattr(pipeline, "WALKED", 0)  # by the index's shares instead
    for source, one in pipeline.sources_read(index, store, 4, 3, steps).items():
        assert one["epochs"] == pytest.approx(told[source]["epochs"], abs=0.5, rel=0.5)


def test_steps_and_processes_hold_the_same_rows_with_weights(store, index):
    whole = [pipeline.train_batches(index, store, 4, seed=1)[step] for step in range(30, 33)]
    resumed = pipeline.iterate_from(pipeline.train_batches(index, store, 4, seed=1), 30)
    halves = [pipeline.train_batches(index, store, 4, 1, p, 2) for p in (0, 1)]
    for step, want in enumerate(whole, start=30):
        got = next(resumed)
        for key, value in want.items():
            assert np.array_equal(got[key], value)
            assert np.array_equal(np.concatenate([half[step][key] for half in halves]), value)


def test_training_on_the_index_does_not_drift_from_its_calibration(store, index, tmp_path):
    documents = [
        (store.ids(i), None, store.source_names[store.source_of[i]]) for i in range(len(store))
    ]
    found = calibrate.calibrate(
        documents, Patching(rule="space"), weights=WEIGHTS, corpus=store.fingerprint
    )
    write_json(tmp_path / "blt.json", calibrate.record(found))
    watch = pipeline.patch_drift(index, store, tmp_path / "blt.json")
    assert watch.mean == pytest.approx(pack.load_header(index)["text_bytes_per_patch"])
    batches = pipeline.train_batches(index, store, 4, seed=0)
    read = [
        (int(b["bytes_BxL"].sum()), int((b["patch_segment_BxP"] > 0).sum()))
        for b in map(batches.__getitem__, range(400))
    ]
    assert sum(n for _, n in read) > 3 * watch.window and not any(watch.count(*one) for one in read)
    told = [word for text, n in read if (word := watch.count(round(1.05 * text), n))]
    assert len(told) == 1 and told[0].startswith("patches drift")
    with pytest.raises(ConfigError, match=f"of corpus {store.fingerprint}, the store holds"):
        pipeline.patch_drift(index, made(tmp_path, seed=9), tmp_path / "blt.json")


def test_validation_is_not_weighted(store, tmp_path):
    headers = prepare.indexes(
        {"train": store, "validation": store}, tmp_path, "bytes", 256, WEIGHTS, fingerprint=""
    )
    assert headers["validation"]["text_bytes"] == store.text_bytes != headers["train"]["text_bytes"]
