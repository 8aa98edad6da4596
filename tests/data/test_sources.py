"""Reading documents: every format, from near and far, and every way an input can be bad."""

import gzip
import json

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem

from blt_jax.config import ConfigError, Data
from blt_jax.data import sources


def lines(n, first=0):
    return [
        json.dumps({"text": f"text number {i}", "source": f"s{i % 3}"})
        for i in range(first, first + n)
    ]


def write(path, rows):
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def read(pattern, **data):
    data, skips = Data(input=str(pattern), **data), sources.Skips(early=True)
    return [
        document
        for file in sources.files(data)
        for document in sources.documents(file, data, skips)
    ], skips


# ---------------------------------------------------------------- formats


def test_formats_agree(tmp_path):
    rows = lines(20)
    plain = write(tmp_path / "a.jsonl", rows)
    raw = open(plain, "rb").read()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "a.jsonl.zst").write_bytes(
        zstandard.compress(raw[:300]) + zstandard.compress(raw[300:])
    )
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
    write(
        tmp_path / "b.train.jsonl",
        [json.dumps({"body": "x", "lang": "en", "source": "no"}), '{"body": "y"}'],
    )
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


def test_a_wrong_field_stops_early(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(500))
    with pytest.raises(
        ConfigError, match="100 of 100 .*no text in field 'txt'.*set data.field"
    ) as error:
        read(path, field="txt")
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
        read("stdlib", validation_input="none.txt")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ConfigError, match="a.csv: unknown kind of file; known are .jsonl"):
        read(tmp_path / "a.csv")


# ---------------------------------------------------------------- far away


def test_urls_read_as_local_files_do(tmp_path):
    raw = "\n".join(lines(20)).encode()
    want = None
    for ending, data in (
        ("jsonl", raw),
        ("jsonl.gz", gzip.compress(raw)),
        ("jsonl.zst", zstandard.compress(raw)),
    ):
        (tmp_path / f"a.{ending}").write_bytes(data)
        with fsspec.open(f"memory://texts/a.{ending}", "wb") as file:
            file.write(data)
    table = pyarrow.Table.from_pylist([json.loads(line) for line in lines(20)])
    with fsspec.open("memory://texts/a.parquet", "wb") as file:
        pyarrow.parquet.write_table(table, file)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for ending in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet"):
        near, _ = read(tmp_path / f"a.{ending}")
        want = want or [(d.text, d.source) for d in near]
        for url in (
            f"memory://texts/a.{ending}",
            f"memory://te*/?.{ending}",
            f"file://{tmp_path}/a.{ending}",
        ):
            found, _ = read(url)
            assert [(d.text, d.source) for d in found] == want and len(want) == 20, url
    assert read("memory://texts/a.jsonl")[0][4].name == "memory:///texts/a.jsonl:5"
    assert len(read("memory://texts/*")[0]) == 80


def test_far_files_that_cannot_be_read(monkeypatch):
    with fsspec.open("memory://broken/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress("\n".join(lines(100)).encode())[:-20])
    with pytest.raises(ConfigError, match="cannot read memory:///broken/a.jsonl.gz: .") as error:
        read("memory://broken/*")
    assert "\n" not in str(error.value)

    class Lost(Exception):
        """What a driver may raise: nothing that Python knows."""

    def lost(self, path, *a, **more):
        raise Lost(f"no more {path}")

    monkeypatch.setattr(MemoryFileSystem, "_open", lost)
    with pytest.raises(
        ConfigError, match="cannot read memory:///broken/a.jsonl.gz: no more /broken/a.jsonl.gz"
    ):
        read("memory://broken/*")
    with pytest.raises(ConfigError, match="data.input = 'memory://none/.*no such file"):
        read("memory://none/*.jsonl")


@pytest.mark.parametrize(
    "protocol, package", [("gs", "gcsfs"), ("s3", "s3fs"), ("http", r"'fsspec\[http\]'")]
)
def test_a_missing_driver_is_named_with_its_package(monkeypatch, protocol, package):
    def absent(_):
        raise ImportError("not here")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)  # whether this machine has it or not
    with pytest.raises(
        ConfigError, match=f"no driver for {protocol}:// here; pip install {package}$"
    ):
        read(f"{protocol}://bucket/*.jsonl")


def test_an_unknown_protocol_is_one_line():
    with pytest.raises(
        ConfigError, match="data.input = 'gopher://a/b.txt': cannot be listed: .*gopher"
    ):
        read("gopher://a/b.txt")
