"""Reading documents: every format, every way an input can be bad, and the split by hash."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from blt_jax.config import ConfigError, Data
from blt_jax.data import sources


def lines(n, first=0):
    return [json.dumps({"text": f"text number {i}", "source": f"s{i % 3}"}) for i in range(first, first + n)]


def write(path, rows):
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def read(pattern, **data):
    skips = sources.Skips()
    return list(sources.documents(Data(**data), str(pattern), skips)), skips


def texts(split):
    return [d.text for d in split]


# ---------------------------------------------------------------- formats


def test_formats_agree(tmp_path):
    rows = lines(20)
    plain = write(tmp_path / "a.jsonl", rows)
    raw = open(plain, "rb").read()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(raw[:300]) + zstandard.compress(raw[300:]))
    table = pyarrow.Table.from_pylist([json.loads(r) for r in rows])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=6)
    want = [(d.text, d.source) for d in read(plain)[0]]
    assert want[4] == (b"text number 4", "s1") and len(want) == 20
    for ending in ("jsonl.gz", "jsonl.zst", "parquet"):
        found, _ = read(tmp_path / f"a.{ending}")
        assert [(d.text, d.source) for d in found] == want, ending
    assert read(plain)[0][4].name == f"{plain}:5"


def test_text_files_are_bytes_and_fields_can_be_named(tmp_path):
    odd = b"\x00nul \xff\xfe invalid \xed\xa0\x80"
    (tmp_path / "odd.v1.txt").write_bytes(odd)
    (found,), _ = read(tmp_path / "*.txt")
    assert (found.text, found.source) == (odd, "odd")
    write(tmp_path / "b.train.jsonl", [json.dumps({"body": "x", "lang": "en", "source": "no"}), '{"body": "y"}'])
    found, _ = read(tmp_path / "b.train.jsonl", field="body", source_field="lang")
    assert [(d.text, d.source) for d in found] == [(b"x", "en"), (b"y", "b")]


def test_lone_surrogates_and_nul_in_json_are_kept(tmp_path):
    path = write(tmp_path / "a.jsonl", [r'{"text": "a\ud800b\u0000", "source": "\udfff"}'])
    (found,), _ = read(path)
    assert found.text == b"a\xed\xa0\x80b\x00"


def test_stdlib():
    found, skips = read("stdlib")
    assert {d.source for d in found} == {"modules", "packages", "encodings", "help"}
    assert len(found) > 300 and skips.seen >= len(found)
    assert not any("site-packages" in d.name or "/test/" in d.name for d in found)
    assert sum(d.name.endswith(("json/__init__.py", "/ast.py")) for d in found) == 2


# ---------------------------------------------------------------- bad input


def test_bad_lines_are_counted_and_the_first_named(tmp_path):
    rows = lines(1000)
    rows[6], rows[8] = "{broken", "[1]"
    rows[10:13] = ['{"no": 1}', '{"text": 7}', '{"text": ""}']
    rows[20] = ""  # an empty line is nothing
    path = write(tmp_path / "a.jsonl", rows)
    found, skips = read(path)
    skips.check()
    assert len(found) == 994 and skips.seen == 999
    assert skips.counts == {
        "not JSON": 1,
        "not a JSON object": 1,
        "no text in field 'text'": 1,
        "int text in field 'text'": 1,
        "empty text": 1,
    }
    assert skips.lines()[0] == f"1 x not JSON: {path}:7"


def test_only_the_first_few_are_named():
    skips = sources.Skips()
    for i in range(7):
        skips.seen += 1000
        skips.add("not JSON", f"f:{i}")
    assert skips.lines() == ["7 x not JSON: f:0, f:1, f:2, f:3, f:4, ..."]


def test_more_than_one_percent_stops(tmp_path):
    path = write(tmp_path / "a.jsonl", [*lines(150), "{broken", "{worse"])
    with pytest.raises(ConfigError, match=r"2 of 152 documents cannot be used \(1.3%.*a.jsonl:151, .*a.jsonl:152"):
        sources.splits(Data(input=path))


def test_a_broken_validation_input_does_not_hide_behind_training(tmp_path):
    train = write(tmp_path / "train.jsonl", lines(1000))
    broken = write(tmp_path / "validation.jsonl", [*lines(8, first=2000), "{broken"])
    with pytest.raises(ConfigError, match=r"1 of 9 documents cannot be used .*validation.jsonl:9"):
        sources.splits(Data(input=train, validation_input=broken))
    both = Data(input=train, validation_input=write(tmp_path / "good.jsonl", [*lines(8, first=2000), '{"text": ""}']))
    skips = sources.splits(both)[2]
    assert skips.seen == 1009 and skips.lines() == [f"1 x empty text: {tmp_path / 'good.jsonl'}:9"]


def test_a_wrong_field_stops_early(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(500))
    with pytest.raises(ConfigError, match="100 of 100 .*no text in field 'txt'.*set data.field") as error:
        sources.splits(Data(input=path, field="txt"))
    assert "\n" not in str(error.value)
    table = pyarrow.Table.from_pylist([{"text": "a"}])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="no such column; did you mean 'text'"):
        read(tmp_path / "a.parquet", field="txt")


def broken_files(folder):
    good = gzip.compress("\n".join(lines(100)).encode())
    (folder / "cut.jsonl.gz").write_bytes(good[:-20])
    (folder / "not.jsonl.gz").write_bytes(b"plain text")
    (folder / "not.jsonl.zst").write_bytes(b"plain text")
    (folder / "not.parquet").write_bytes(b"plain text")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    return ("cut.jsonl.gz", "not.jsonl.gz", "not.jsonl.zst", "not.parquet", "loop.txt")


def test_unreadable_files_are_named(tmp_path):
    for name in broken_files(tmp_path):
        with pytest.raises(ConfigError, match=f"cannot read .*{name}: .") as error:
            read(tmp_path / f"{name[:-1]}?")
        assert "\n" not in str(error.value)


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="data.input = .*no such file"):
        read(tmp_path / "*.jsonl")
    with pytest.raises(ConfigError, match="data.validation_input = .*no such file"):
        read("none.txt", validation_input="none.txt")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ConfigError, match="a.csv: unknown kind of file; known are .jsonl"):
        read(tmp_path / "a.csv")
    write(tmp_path / "empty.jsonl", [])
    with pytest.raises(ConfigError, match="no documents for train among 0 read"):
        sources.splits(Data(input=str(tmp_path / "empty.jsonl")))
    write(tmp_path / "one.jsonl", lines(1))
    with pytest.raises(ConfigError, match="no documents for train among 1 read"):
        sources.splits(Data(input=str(tmp_path / "one.jsonl")))


# ---------------------------------------------------------------- splits


def test_split_does_not_depend_on_files(tmp_path):
    rows = lines(300)
    one = Data(input=write(tmp_path / "all.jsonl", rows), validation_fraction=0.1)
    (tmp_path / "parts").mkdir()
    for i in range(3):
        write(tmp_path / "parts" / f"{i}.jsonl", rows[::-1][i::3])
    many = Data(input=str(tmp_path / "parts" / "*.jsonl"), validation_fraction=0.1)
    train, validation, _ = sources.splits(one)
    train_2, validation_2, _ = sources.splits(many)
    assert texts(train) == texts(train_2) and texts(validation) == texts(validation_2)
    assert 15 <= validation.documents <= 50 and train.documents + validation.documents == 300
    assert not set(texts(train)) & set(texts(validation))


def test_repeats_are_dropped_and_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", [*lines(50), *lines(3, first=10)])
    train, validation, skips = sources.splits(Data(input=path))
    assert train.documents + validation.documents == 50
    assert skips.counts == {"exact repeat": 3}


def test_validation_input_wins_over_training(tmp_path):
    data = Data(
        input=write(tmp_path / "train.jsonl", lines(50)),
        validation_input=write(tmp_path / "validation.jsonl", lines(10, first=45)),
    )
    train, validation, skips = sources.splits(data)
    assert train.documents == 45 and validation.documents == 10 and skips.counts == {"exact repeat": 5}
    assert not set(texts(train)) & set(texts(validation))


def test_max_bytes_takes_whole_documents_in_hash_order(tmp_path):
    rows = [json.dumps({"text": "x" * (1 + 37 * i % 101) + str(i)}) for i in range(200)]
    path = write(tmp_path / "a.jsonl", rows)
    everything = texts(sources.splits(Data(input=path))[0])
    train, validation, _ = sources.splits(Data(input=path, max_bytes=1000, validation_max_bytes=90))
    room, want = 1000, []
    for text in everything:
        if len(text) <= room:
            room -= len(text)
            want.append(text)
    assert texts(train) == want and 950 < train.text_bytes <= 1000 and validation.text_bytes <= 90


def test_small_corpora_still_get_both_splits(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(3))
    train, validation, _ = sources.splits(Data(input=path, validation_fraction=1e-9))
    assert (train.documents, validation.documents) == (2, 1)
    train, validation, _ = sources.splits(Data(input=path, validation_fraction=1 - 1e-9))
    assert (train.documents, validation.documents) == (1, 2)


def test_sorting_in_files_is_the_same(tmp_path, monkeypatch):
    rows = [*lines(200), *lines(5), r'{"text": "\ud800", "source": "\udcff"}']
    data = Data(input=write(tmp_path / "a.jsonl", rows))
    want = [list(split) for split in sources.splits(data)[:2]]
    monkeypatch.setattr(sources, "MEMORY", 10_000)
    train, validation, skips = sources.splits(data, scratch=tmp_path)
    assert len(list(tmp_path.glob("sort-*/*"))) > 5
    assert [list(train), list(validation)] == want and skips.counts == {"exact repeat": 5}
