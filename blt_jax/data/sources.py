"""Documents of a corpus: read from files, near or far, and counted where they cannot be used.

`files` lists what `data.input` and `data.validation_input` name, `documents` streams what one of
them holds. A path with "://" is fsspec's (gs://, s3://, hf://, memory://, ...), which needs its
driver installed.
"""

import ast
import dataclasses
import difflib
import glob
import gzip
import hashlib
import io
import json
import os
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import zstandard
from fsspec.registry import known_implementations

from blt_jax.config import ConfigError, Data

STDLIB = "stdlib"
NAMED = 5  # skips of a kind that are named with file and line
BAD_SHARE = 0.01  # share of unusable lines from which a corpus is refused
HOPELESS = 100  # a corpus that begins with so many unusable lines is refused at once
DIGEST = 16  # bytes of a document's hash
TRAIN, VALIDATION = 0, -1  # rank of an input: the lower keeps a document that both hold


@dataclasses.dataclass(frozen=True)
class Document:
    """`text` as it is, NULs and invalid UTF-8 included; `source`: what reports group by; `name`:
    file and line; `labels`: other fields of its record, as asked for.
    """

    text: bytes
    source: str
    name: str
    labels: tuple[str, ...] = ()

    @property
    def digest(self) -> bytes:
        """The hash of the text: DIGEST bytes."""
        return hashlib.blake2b(self.text, digest_size=DIGEST).digest()


@dataclasses.dataclass(frozen=True)
class File:
    """`path`: local, or a URL; `kind`: its reader; `source`: of documents that name none;
    `size`: bytes, 0: unknown; `rank`: TRAIN or VALIDATION.
    """

    path: str
    kind: str
    source: str
    size: int
    rank: int


class Skips:
    """Counts what is left out, by reason. Unusable lines above BAD_SHARE of all are an error.

    `early`: the input begins here, so that HOPELESS counts.
    """

    def __init__(self, early: bool = False):
        self.seen, self.bad = 0, 0
        self.counts: dict[str, int] = {}
        self.named: dict[str, list[str]] = {}
        self._early = early

    def add(self, reason: str, name: str, bad: bool = True) -> None:
        """Counts one. `bad`: the input is at fault, not just redundant.

        Raises ConfigError where nothing is usable at all.
        """
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.named.setdefault(reason, [])
        if len(named) < NAMED:
            named.append(name)
        self.bad += bad
        if self._early and self.bad == self.seen == HOPELESS:
            self.check()

    def check(self) -> None:
        """Raises ConfigError where more than BAD_SHARE of all is unusable."""
        if self.bad > BAD_SHARE * self.seen:
            share = f"{self.bad / self.seen:.1%}, limit 1%"
            raise ConfigError(
                f"data: {self.bad:,} of {self.seen:,} documents cannot be used ({share}): "
                f"{'; '.join(self.lines())}; mend or remove them, or set data.field"
            )

    def facts(self) -> dict[str, Any]:
        """As JSON, for `include`."""
        return {"seen": self.seen, "bad": self.bad, "counts": self.counts, "named": self.named}

    def include(self, facts: dict[str, Any]) -> None:
        """Adds what others left out."""
        self.seen += facts["seen"]
        self.bad += facts["bad"]
        for reason, count in facts["counts"].items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            named = self.named.setdefault(reason, [])
            named += facts["named"][reason][: NAMED - len(named)]

    def lines(self) -> list[str]:
        """One line per reason: how many, and the first few by file and line."""
        more = lambda why, n: ", ..." if n > len(self.named[why]) else ""
        return [
            f"{n:,} x {why}: {', '.join(self.named[why])}{more(why, n)}"
            for why, n in self.counts.items()
        ]


# ---------------------------------------------------------------- listing


def files(data: Data) -> list[File]:
    """The files of both inputs, in the order of their names, training first.

    Raises ConfigError for a glob without files, an unknown ending, or a protocol whose driver is
    not installed.
    """
    listed: list[File] = []
    for rank, field in ((TRAIN, "input"), (VALIDATION, "validation_input")):
        pattern = getattr(data, field)
        if pattern == STDLIB:
            listed += _stdlib(rank)
        elif pattern or rank == TRAIN:
            where = f"data.{field} = {pattern!r}"
            matches = sorted(_far(pattern, where) if "://" in pattern else _near(pattern))
            if not matches:
                raise ConfigError(f"{where}: no such file; give a path, a glob, or {STDLIB!r}")
            listed += [File(path, _kind(path), _stem(path), size, rank) for path, size in matches]
    return listed


def _near(pattern):
    for path in glob.glob(os.path.expanduser(pattern), recursive=True):
        if not os.path.isdir(path):
            try:
                yield path, os.stat(path).st_size
            except OSError:  # named when it is read
                yield path, 0


def _far(pattern, where):
    protocol = pattern.split("://", 1)[0]
    try:
        system, inside = fsspec.core.url_to_fs(pattern)
        matches = system.glob(inside, detail=True)
    except ImportError as error:
        module = known_implementations[protocol]["class"].split(".")[0]
        package = f"'fsspec[{protocol}]'" if module == "fsspec" else module
        raise ConfigError(
            f"{where}: no driver for {protocol}:// here; pip install {package}"
        ) from error
    except Exception as error:  # each driver raises errors of its own
        raise ConfigError(f"{where}: cannot be listed: {_one_line(error)}") from error
    return [
        (system.unstrip_protocol(p), facts.get("size") or 0)
        for p, facts in matches.items()
        if facts["type"] == "file"
    ]


def _stem(path):
    return Path(path).name.split(".")[0]


def _kind(path):
    for ending in _READERS:
        if ending[0] == "." and path.endswith(ending):
            return ending
    known = [ending for ending in _READERS if ending[0] == "."]
    raise ConfigError(f"data: {path}: unknown kind of file; known are {', '.join(known)}")


def _one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


# ---------------------------------------------------------------- reading


def documents(
    file: File, data: Data, skips: Skips, fields: Sequence[str] = ()
) -> Iterator[Document]:
    """Yields each Document of `file`. Raises ConfigError, naming the file, where it cannot be read.

    `fields` of a record become the document's labels, "" where it has none.
    """
    try:
        yield from _READERS[file.kind](file, data, skips, fields)
    except ConfigError:
        raise
    except Exception as error:  # a driver raises errors of its own
        if "://" in file.path or isinstance(error, _UNREADABLE):
            raise ConfigError(f"data: cannot read {file.path}: {_one_line(error)}") from error
        raise


_UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException)


def _open(path):
    raw = fsspec.open(path, "rb").open() if "://" in path else open(path, "rb")
    if path.endswith(".gz"):
        return gzip.open(raw, "rb")
    if path.endswith(".zst"):
        return io.BufferedReader(
            zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        )
    return raw


def _jsonl(file, data, skips, fields):
    with _open(file.path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            skips.seen += 1
            name = f"{file.path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                skips.add("not JSON", name)
                continue
            if not isinstance(record, dict):
                skips.add("not a JSON object", name)
                continue
            yield from _record(record, file.source, name, data, skips, fields)


def _parquet(file, data, skips, fields):
    with _open(file.path) as raw, pyarrow.parquet.ParquetFile(raw) as table:
        known = table.schema_arrow.names
        if data.field not in known:
            near = difflib.get_close_matches(data.field, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ConfigError(
                f"data.field = {data.field!r}: {file.path} has no such column; {hint}"
            )
        columns = [c for c in dict.fromkeys((data.field, data.source_field, *fields)) if c in known]
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            for record in batch.to_pylist():
                number += 1
                skips.seen += 1
                yield from _record(
                    record, file.source, f"{file.path}:{number}", data, skips, fields
                )


def _record(record, default, name, data, skips, fields):
    text = record.get(data.field)
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")  # a lone surrogate stays, as three bytes
    if not isinstance(text, bytes):
        kind = "no" if text is None else type(text).__name__
        skips.add(f"{kind} text in field {data.field!r}", name)
    elif not text:
        skips.add("empty text", name, bad=False)
    else:
        source = record.get(data.source_field)
        source = source if isinstance(source, str) and source else default
        labels = tuple(str(record.get(field) or "") for field in fields)
        yield Document(text, source, name, labels)


def _text(file, data, skips, _):
    """The whole file as one document."""
    skips.seen += 1
    with _open(file.path) as raw:
        text = raw.read()
    if text:
        yield Document(text, file.source, file.path)
    else:
        skips.add("empty text", file.path, bad=False)


def _topics(file, data, skips, _):
    """The help texts inside `topics.py`; the file itself would repeat them all, across splits."""
    for node in ast.parse(Path(file.path).read_bytes()).body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict):
            for topic, text in sorted(ast.literal_eval(value).items()):
                skips.seen += 1
                yield Document(text.encode(), file.source, f"{file.path}:{topic}")


_READERS = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".jsonl.zst": _jsonl,
    ".parquet": _parquet,
    ".txt": _text,
    "module": _text,
    "topics": _topics,
}


def _stdlib(rank):
    """Python's own standard library: modules, packages, encodings, and its help as prose."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
    for folder, names, inside in os.walk(root):
        names[:] = sorted(set(names) - left_out)
        parts = Path(folder).relative_to(root).parts
        for name in sorted(f for f in inside if f.endswith(".py")):
            path = Path(folder, name)
            kind, source = "module", "packages" if parts else "modules"
            if parts[:1] == ("encodings",):
                source = "encodings"
            if parts == ("pydoc_data",) and name == "topics.py":
                kind, source = "topics", "help"
            yield File(str(path), kind, source, path.stat().st_size, rank)
