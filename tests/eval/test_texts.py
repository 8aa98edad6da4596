"""Texts with their labels, and what models make of them: plain, noised, along thresholds."""

import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.eval import noise, texts
from blt_jax.flops import analytic

SOME = [b"it is what it is, and that is that.", "что есть, то есть".encode(), b"x" * 90]


def write(path, records):
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records))
    return str(path)


def test_labels_come_from_the_record_or_the_letters(tmp_path):
    some = [
        {"text": "abc где", "lang": "xx", "script": "Latn"},
        {"text": "что abc есть", "source": "s"},
        {"text": ""},
    ]
    found, skipped = texts.read(write(tmp_path / "a.jsonl", some))
    assert [one.labels for one in found] == [
        {"source": "a", "lang": "xx", "script": "Latn"},
        {"source": "s", "lang": "", "script": "cyrillic"},
    ]
    assert len(skipped) == 1 and "empty text" in skipped[0] and "a.jsonl:3" in skipped[0]
    found, (_, left) = texts.read(str(tmp_path / "*.jsonl"), most=12)
    assert [len(one.data) for one in found] == [10] and left.startswith("1 of 2 documents")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe a")
    assert texts.read(str(tmp_path / "b.txt"))[0][0].labels == {
        "source": "b",
        "lang": "",
        "script": "latin",
    }
    assert (
        texts.script_of(b"12 \xff") == ""
        and texts.lines(b"a\n \nb\r\n") == 2
        and texts.lines(b"\n") == 1
    )


def test_fewer_bytes_are_spread_over_all_documents(tmp_path):
    path = write(
        tmp_path / "a.jsonl", [{"text": f"{i:02} of 60", "lang": f"l{i // 10}"} for i in range(60)]
    )
    found, (left,) = texts.read(path, most=8 * 12)
    langs = [one.labels["lang"] for one in found]
    assert langs == sorted(langs) and all(1 <= langs.count(f"l{i}") <= 3 for i in range(6))
    assert left == "48 of 60 documents, spread evenly: max_bytes = 96"
    assert texts.read(path, most=8 * 60)[1] == []


def test_nothing_to_score_is_one_line(tmp_path):
    for records, most, line in (
        ([{"text": ""}], 0, "nothing to score: 1 x empty text"),
        (
            ["{", "\udcff".encode("utf-8", "surrogatepass").decode("latin-1")],
            0,
            "2 of 2 documents cannot be used",
        ),
        ([{"text": "abc"}], 2, "no document within 2 bytes; raise --max_bytes"),
    ):
        with pytest.raises(ConfigError, match=line):
            texts.read(write(tmp_path / "a.jsonl", records), most)
    with pytest.raises(ConfigError, match="no such file"):
        texts.read(str(tmp_path / "absent*.jsonl"))


@pytest.mark.parametrize("name", ["patches", "tokens"])
def test_noised_text_is_what_is_scored(models, name):
    model, told = models[name], []
    found = texts.robustness(
        model, SOME, ["Drop", "AntSpeak"], seed=3, progress=lambda *done: told.append(done)
    )
    assert list(found) == ["bytes", "characters", "clean", "Drop", "AntSpeak", "seed"]
    assert (
        found["bytes"] == [len(text) for text in SOME]
        and found["characters"][1] == 17 < found["bytes"][1]
    )
    for key in ("clean", "Drop", "AntSpeak"):
        read = [text if key == "clean" else noise.noised(text, key, 3) for text in SOME]
        assert found[key]["bytes"] == [len(text) for text in read]
        np.testing.assert_allclose(
            found[key]["bits"], [model.bits(text) for text in read], rtol=1e-5
        )
    size = sum(sum(found[key]["bytes"]) for key in ("clean", "Drop", "AntSpeak"))
    assert told[-1] == (size, size)
    cost = texts.flops_per_byte(model, found["clean"])
    own = sum(found["bytes"]) / sum(found["clean"]["units"])
    how = dict(
        patch_size=own, context_bytes=64 * (own if name == "tokens" else 1), convention="exact"
    )
    assert cost["model"] == pytest.approx(analytic.per_byte(model.config, **how).total)
    assert (cost["entropy_model"] > 0) == (name == "patches")


def test_the_threshold_is_a_dial(models):
    model = models["patches"]
    plain = texts.measure(model, SOME)
    low, own, high = texts.threshold_sweep(model, SOME, [0.0, model.patching.threshold, 99.0])
    assert (
        own["bits"] == plain["bits"]
        and own["units"] == plain["units"]
        and model.patching.threshold == 4.9
    )
    assert low["units"] == [len(text) for text in SOME] and sum(high["units"]) < sum(own["units"])
    costs = [at["flops_per_byte"]["model"] for at in (low, own, high)]
    assert costs == sorted(costs, reverse=True) and low["bits"] != high["bits"]
    found = texts.thresholds(model, SOME, sizes=(1.5, 4))
    assert found == sorted(found) and 4.9 in found and len(found) == 3
    with pytest.raises(
        ConfigError, match="a threshold can be set only where entropies cut patches"
    ):
        texts.threshold_sweep(models["tokens"], SOME, [1.0])
