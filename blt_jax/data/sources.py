"""Documents of a corpus: read from files, counted where they cannot be used, split by hash.

`documents` streams what the files hold. `splits` puts the documents in the order of their hash, which
does not depend on how files are named or ordered, drops exact repeats and cuts to the sizes asked for.
Corpora beyond `MEMORY` are sorted through temporary files, so memory stays bounded.
"""

import ast
import dataclasses
import difflib
import glob
import gzip
import hashlib
import heapq
import io
import itertools
import json
import os
import struct
import sysconfig
import tempfile
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import zstandard

from blt_jax.config import ConfigError, Data
from blt_jax.data.store import writing

STDLIB = "stdlib"
NAMED = 5  # skips of a kind that are named with file and line
BAD_SHARE = 0.01  # share of unusable lines from which a corpus is refused
HOPELESS = 100  # a corpus that begins with so many unusable lines is refused at once
MEMORY = 256 << 20  # text bytes that are sorted in memory at a time
DIGEST = 16  # bytes of a document's hash


@dataclasses.dataclass(frozen=True)
class Document:
    """`text` as it is, NULs and invalid UTF-8 included; `source` is what reports group by; `name`: file and line."""

    text: bytes
    source: str
    name: str

    @property
    def digest(self):
        return hashlib.blake2b(self.text, digest_size=DIGEST).digest()


class Skips:
    """Counts what is left out, by reason. Unusable lines above BAD_SHARE of all are an error."""

    def __init__(self):
        self.seen = 0
        self.counts, self.named, self._bad = {}, {}, 0

    def add(self, reason, name, bad=True):
        """`bad`: the input is at fault, not just redundant. Raises ConfigError where nothing is usable at all."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        named = self.named.setdefault(reason, [])
        if len(named) < NAMED:
            named.append(name)
        self._bad += bad
        if self._bad == self.seen == HOPELESS:
            self.check()

    def check(self):
        if self._bad > BAD_SHARE * self.seen:
            share = f"{self._bad:,} of {self.seen:,} documents cannot be used ({self._bad / self.seen:.1%}, limit 1%)"
            raise ConfigError(f"data: {share}: {'; '.join(self.lines())}; mend or remove them, or set data.field")

    def include(self, other):
        """Adds what another input left out."""
        self.seen += other.seen
        self._bad += other._bad
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            named = self.named.setdefault(reason, [])
            named += other.named[reason][: NAMED - len(named)]

    def lines(self):
        """One line per reason: how many, and the first few by file and line."""
        more = lambda why, n: ", ..." if n > len(self.named[why]) else ""  # noqa: E731
        return [f"{n:,} x {why}: {', '.join(self.named[why])}{more(why, n)}" for why, n in self.counts.items()]


# ---------------------------------------------------------------- reading


def documents(data: Data, split_input: str, skips: Skips):
    """Yields each Document of `split_input` ("stdlib" or a glob), in the order of the file names.

    Raises ConfigError, naming the file, for a glob without files, an unknown ending, or an unreadable file.
    """
    if split_input == STDLIB:
        yield from _stdlib(skips)
        return
    paths = [p for p in sorted(glob.glob(os.path.expanduser(split_input), recursive=True)) if not os.path.isdir(p)]
    if not paths:
        field = "validation_input" if split_input == data.validation_input else "input"
        raise ConfigError(f"data.{field} = {split_input!r}: no such file; give a path, a glob, or {STDLIB!r}")
    readers = [(path, _reader(path)) for path in paths]  # an unknown ending fails before anything is read
    for path, reader in readers:
        try:
            yield from reader(path, data, skips)
        except _UNREADABLE as error:
            raise ConfigError(f"data: cannot read {path}: {' '.join(str(error).split())}") from error


_UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException)


def _reader(path):
    for ending, reader in _READERS.items():
        if path.endswith(ending):
            return reader
    raise ConfigError(f"data: {path}: unknown kind of file; known are {', '.join(_READERS)}")


def _jsonl(path, data, skips):
    default = Path(path).name.split(".")[0]
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            skips.seen += 1
            name = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                skips.add("not JSON", name)
                continue
            if not isinstance(record, dict):
                skips.add("not a JSON object", name)
                continue
            yield from _record(record, default, name, data, skips)


def _open(path):
    if path.endswith(".gz"):
        return gzip.open(path, "rb")
    if path.endswith(".zst"):
        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True))
    return open(path, "rb")


def _parquet(path, data, skips):
    default = Path(path).name.split(".")[0]
    with pyarrow.parquet.ParquetFile(path) as file:
        known = file.schema_arrow.names
        if data.field not in known:
            near = difflib.get_close_matches(data.field, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise ConfigError(f"data.field = {data.field!r}: {path} has no such column; {hint}")
        columns = [c for c in (data.field, data.source_field) if c in known]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for record in batch.to_pylist():
                number += 1
                skips.seen += 1
                yield from _record(record, default, f"{path}:{number}", data, skips)


def _record(record, default, name, data, skips):
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
        yield Document(text, source if isinstance(source, str) and source else default, name)


def _text(path, data, skips):
    yield from _whole(path, Path(path).name.split(".")[0], skips)


def _whole(path, source, skips):
    skips.seen += 1
    text = Path(path).read_bytes()
    if text:
        yield Document(text, source, str(path))
    else:
        skips.add("empty text", str(path), bad=False)


_READERS = {".jsonl": _jsonl, ".jsonl.gz": _jsonl, ".jsonl.zst": _jsonl, ".parquet": _parquet, ".txt": _text}


def _stdlib(skips):
    """Python's own standard library: modules, packages, encodings, and the topics of its help as prose."""
    root = Path(sysconfig.get_path("stdlib"))
    for folder, names, files in os.walk(root):
        names[:] = sorted(set(names) - {"site-packages", "dist-packages", "test", "tests", "__pycache__"})
        parts = Path(folder).relative_to(root).parts
        for name in sorted(f for f in files if f.endswith(".py")):
            if parts == ("pydoc_data",) and name == "topics.py":
                yield from _topics(Path(folder, name), skips)
                continue
            source = "encodings" if parts[:1] == ("encodings",) else "packages" if parts else "modules"
            yield from _whole(Path(folder, name), source, skips)


def _topics(path, skips):
    """The help texts inside `topics.py`. The file itself would repeat them all, across both splits."""
    for node in ast.parse(path.read_bytes()).body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict):
            for topic, text in sorted(ast.literal_eval(value).items()):
                skips.seen += 1
                yield Document(text.encode(), "help", f"{path}:{topic}")


# ---------------------------------------------------------------- splitting


class Split:
    """The documents of one split, in hash order; can be iterated again."""

    def __init__(self, name, chosen):
        self.name, self._chosen = name, chosen
        self.documents, self.text_bytes = 0, 0
        for document in self:
            self.documents += 1
            self.text_bytes += len(document.text)

    def __iter__(self):
        return self._chosen(self.name)


def splits(data: Data, scratch=None):
    """(train, validation, skips): two Splits, and what was left out.

    Without `data.validation_input` the documents with the lowest hashes validate, at least one and never all. An
    exact repeat is kept once, in validation if it is in both inputs. `max_bytes` takes whole documents in hash
    order and passes over those that no longer fit. `scratch`: folder for temporary files, if they are needed.
    Raises ConfigError: unreadable input, more than 1% of an input's lines unusable, or a split without documents.
    """
    skips = Skips()

    def ranked():
        for i, one in enumerate([data.input] + [data.validation_input] * bool(data.validation_input)):
            own = Skips()  # a large training input must not hide a broken validation input
            yield from ((-i, document) for document in documents(data, one, own))
            own.check()
            skips.include(own)

    ordered, distinct = _Ordered(ranked(), scratch), 0
    for _, group in itertools.groupby(ordered, key=lambda item: item[0]):
        distinct += 1
        for _, _, document in itertools.islice(group, 1, None):
            skips.add("exact repeat", document.name, bad=False)

    def chosen(name):
        room = (data.max_bytes if name == "train" else data.validation_max_bytes) or float("inf")
        limit = data.validation_fraction * 256**DIGEST
        for number, (digest, group) in enumerate(itertools.groupby(ordered, key=lambda item: item[0])):
            _, rank, document = next(group)
            if data.validation_input:
                validates = rank < 0
            else:
                low = int.from_bytes(digest, "big") < limit
                validates = number == 0 or (low and number < distinct - 1)
            if validates == (name == "validation") and len(document.text) <= room:
                room -= len(document.text)
                yield document

    made = [Split(name, chosen) for name in ("train", "validation")]
    for split in made:
        if not split.documents:
            left = f" ({'; '.join(skips.lines())})" if skips.counts else ""
            raise ConfigError(
                f"data: no documents for {split.name} among {skips.seen:,} read{left}; check data.input, "
                "data.validation_input, data.validation_fraction and the limits on bytes"
            )
    return *made, skips


class _Ordered:
    """(digest, rank, Document) sorted by digest, then rank; iterable again. Beyond MEMORY it sorts in files."""

    def __init__(self, ranked, scratch):
        self._folder, self._files, self._scratch = None, [], scratch
        self._run, size = [], 0
        for rank, document in ranked:
            self._run.append((document.digest, rank, document))
            size += len(document.text) + 512  # Python's own share of a small document
            if size > MEMORY:
                self._spill()
                size = 0
        self._run.sort(key=_order)

    def _spill(self):
        self._folder = self._folder or tempfile.TemporaryDirectory(dir=self._scratch, prefix="sort-")
        path = Path(self._folder.name, str(len(self._files)))
        with writing(path), open(path, "wb") as file:
            for digest, rank, document in sorted(self._run, key=_order):
                parts = [document.source.encode("utf-8", "surrogatepass"), os.fsencode(document.name), document.text]
                file.write(_HEAD.pack(digest, rank, *map(len, parts)))
                file.writelines(parts)
        self._files.append(path)
        self._run = []

    def __iter__(self):
        return heapq.merge(self._run, *map(_read_run, self._files), key=_order)


def _order(item):
    digest, rank, document = item
    return digest, rank, document.source, document.name


_HEAD = struct.Struct(f"<{DIGEST}sbIIQ")


def _read_run(path):
    with open(path, "rb") as file:
        while head := file.read(_HEAD.size):
            digest, rank, *sizes = _HEAD.unpack(head)
            source, name, text = map(file.read, sizes)
            yield digest, rank, Document(text, source.decode("utf-8", "surrogatepass"), os.fsdecode(name))
