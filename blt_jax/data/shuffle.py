"""Documents of many files into the order of their hash, each kept once, split into training and
validation.

Three stages, each in parts that any process may make (`parts.py`); what comes out does not depend
on how files are named, ordered or shared out, nor on the number of pieces:

1. `read`: blocks of input files are parsed once, and their documents left in `STORE/reading`,
   sorted in runs;
2. `sort`: one range of hashes after another is collected from all runs, cleared of exact repeats,
   split, cut to the sizes asked for, and becomes one file of each split's store;
3. `merge`: the store's manifests. `prepared.json` comes last; then `reading` goes.

Every byte is read twice and written twice, whatever the number of pieces. A process that is killed
repeats one part: BLOCK bytes of input (or one file, if that is larger), or one range of hashes:
PART text bytes, or 1/256 of a corpus of more than 64 GiB. `read` holds MEMORY text bytes at a time,
`sort` one range.
"""

import itertools
import json
import os
import struct
from collections.abc import Callable

from blt_jax import storage
from blt_jax.config import ConfigError, Data
from blt_jax.data import sources
from blt_jax.data.parts import WHOLE, Piece, Records
from blt_jax.data.sources import DIGEST, TRAIN, VALIDATION, Document, Skips
from blt_jax.data.store import merge_text, write_text
from blt_jax.record import differences, fingerprint
from blt_jax.storage import PathLike, replacing, write_json
from blt_jax.storage_errors import writing

SPLITS = ("train", "validation")
BLOCK = 32 << 20  # bytes of input files, as stored, that are read as one part
MEMORY = 256 << 20  # text bytes that are sorted in memory at a time
# text bytes of a range of hashes, as long as 256 ranges are enough: files stay open by the range
PART = 256 << 20
# what a store depends on, with the limits on bytes
_CORPUS = ("input", "validation_input", "field", "source_field", "validation_fraction")
Tell = Callable[[int, int], None]  # of bytes done, and of how many


def _limits(data):
    """Most text bytes of each split; 0: no limit."""
    return {"train": data.max_bytes, "validation": data.validation_max_bytes}


def _corpus_of(data):
    """The corpus that a store is made of, as JSON."""
    return {name: getattr(data, name) for name in _CORPUS} | {"max_bytes": _limits(data)}


def prepared(data: Data, folder: PathLike) -> list[str] | None:
    """The lines on what was skipped, if `folder` holds this corpus; None if it has to be made.

    Raises ConfigError if it holds another one, finished or begun.
    """
    for path in (
        storage.at(folder) / "prepared.json",
        storage.at(folder) / "reading" / "corpus.json",
    ):
        if path.exists():
            made = json.loads(path.read_text())
            if not isinstance(made["data"], dict):
                raise ConfigError(
                    f"{folder}: prepared by an older version; delete it and prepare it again"
                )
            changed = differences(made["data"], _corpus_of(data))
            if changed:
                raise ConfigError(
                    f"{folder} holds another corpus ({'; '.join(changed)}); choose another "
                    "folder, or delete it"
                )
            return made["skips"]
    return None


# ---------------------------------------------------------------- read


def _silent(done, of):
    pass


def read(data: Data, folder: PathLike, piece: Piece = WHOLE, tell: Tell = _silent) -> None:
    """Reads `piece`'s share of the input. `tell(done, of)`: bytes of input files, as stored.

    Raises ConfigError for an unreadable file or an input that is mostly unusable.
    """
    if prepared(data, folder) is not None:
        return
    reading = storage.at(folder) / "reading"
    with writing(reading):
        storage.make_folder(reading)
        write_json(reading / "corpus.json", {"data": _corpus_of(data), "skips": None})
    blocks = _blocks(sources.files(data))
    mine = [blocks[k] for k in piece.share(len(blocks))]
    sizes = [sum(file.size for file in block) for block in mine]
    for number, block in enumerate(mine):
        tell(sum(sizes[:number]), sum(sizes))
        first = next(other for other in blocks if other[0].rank == block[0].rank)
        _read_block(block, data, _records(folder), early=block is first)
    tell(sum(sizes), sum(sizes))


def _records(folder):
    return Records(storage.at(folder) / "reading", "")


def _blocks(files):
    """Neighbouring files of one input, together just above BLOCK bytes."""
    blocks, size = [], BLOCK
    for file in files:
        if size >= BLOCK or file.rank != blocks[-1][0].rank:
            blocks.append([])
            size = 0
        blocks[-1].append(file)
        size += file.size or BLOCK  # of a size that is not known: by itself
    return blocks


def _name(block):
    """Blocks of the same files have the same name: when one changes, the others' work stands."""
    return fingerprint([[file.path, file.size, file.rank] for file in block])


def _read_block(block, data, records, early):
    name = _name(block)
    if records.facts(name) is not None:
        return
    run, size, runs = [], 0, []
    skips, texts, ends = Skips(early), 0, []

    def flush():
        run.sort(key=_order)
        ends.extend((run[0][0].hex(), run[-1][0].hex()))
        runs.append(_write_run(records.folder / f"{name}-{len(runs)}", run))
        run.clear()

    for file in block:
        for document in sources.documents(file, data, skips):
            run.append((document.digest, file.rank, len(document.text), document))
            texts += len(document.text)
            size += len(document.text) + 512  # Python's own share of a small document
            if size > MEMORY:
                flush()
                size = 0
    if run:
        flush()
    facts = {
        "runs": runs,
        "text_bytes": texts,
        "first": min(ends, default=""),
        "last": max(ends, default=""),
    }
    with writing(records.folder):
        records.save(name, facts | {"rank": block[0].rank, "skips": skips.facts()})


_HEAD = struct.Struct(f"<{DIGEST}sbIIQ")  # digest, rank, bytes of source, name, text


def _order(item):
    digest, rank, _, document = item
    return digest, rank, document.source, document.name


def _write_run(path, run):
    """Writes sorted documents; returns 257 offsets, of the first document whose hash begins with
    byte b or more.
    """
    fences = [0]
    with writing(path), replacing(path) as temporary, open(temporary, "wb") as file:
        for digest, rank, size, document in run:
            fences += [file.tell()] * (digest[0] + 1 - len(fences))
            parts = [document.source.encode("utf-8", "surrogatepass"), os.fsencode(document.name)]
            file.write(_HEAD.pack(digest, rank, *map(len, parts), size))
            file.writelines([*parts, document.text])
        return fences + [file.tell()] * (257 - len(fences))


def _read_run(path, begin, end, texts):
    """Yields (digest, rank, text bytes, Document, or None without `texts`) from offset `begin` to
    `end` of a run.
    """
    with path.open("rb") as file:
        file.seek(begin)
        while file.tell() < end:
            digest, rank, *sizes = _HEAD.unpack(file.read(_HEAD.size))
            if texts:
                source, name, text = map(file.read, sizes)
                named = source.decode("utf-8", "surrogatepass"), os.fsdecode(name)
                yield digest, rank, len(text), Document(text, *named)
            else:
                file.seek(sum(sizes), os.SEEK_CUR)
                yield digest, rank, sizes[-1], None


# ---------------------------------------------------------------- sort


class _Corpus:
    """All that the first stage left.

    Raises ConfigError if a part of it is missing, or if too much of the input is unusable.
    """

    def __init__(self, data, folder, piece):
        records, blocks = _records(folder), _blocks(sources.files(data))
        self._data, self._folder = data, records.folder
        self._names = [_name(block) for block in blocks]
        self._facts = [records.facts(name) for name in self._names]
        missing = [k for k, facts in enumerate(self._facts) if facts is None]
        piece.need(missing, len(blocks), folder, "read")
        for path, fences in self._runs():
            if not path.exists() or storage.size(path) != fences[-1]:
                raise ConfigError(
                    f"{path}: missing or damaged; delete {records.folder} and begin again"
                )
        self.skips = Skips()
        for rank in (TRAIN, VALIDATION):
            own = Skips()  # a large training input must not hide a broken validation input
            for facts in self._facts:
                if facts["rank"] == rank:
                    own.include(facts["skips"])
            own.check()
            self.skips.include(own.facts())
        size = sum(facts["text_bytes"] for facts in self._facts)
        self.parts = next(n for n in (1 << i for i in range(9)) if size <= n * PART or n == 256)
        self.fingerprint = fingerprint(_corpus_of(data), self._names, self.parts)
        self._first = min((facts["first"] for facts in self._facts if facts["first"]), default="")
        self._last = max(facts["last"] for facts in self._facts)
        self.rooms = {split: limit or float("inf") for split, limit in _limits(data).items()}

    def _runs(self):
        """(path, offsets by first byte of the hash) of each run."""
        for name, facts in zip(self._names, self._facts, strict=True):
            for n, fences in enumerate(facts["runs"]):
                yield self._folder / f"{name}-{n}", fences

    def _spans(self, part):
        """(path of a run, first byte, end) of what the runs hold of range `part`."""
        begin, end = (256 * n // self.parts for n in (part, part + 1))
        return [(path, fences[begin], fences[end]) for path, fences in self._runs()]

    def size(self, part):
        return sum(end - begin for _, begin, end in self._spans(part))

    def chosen(self, part, rooms, skips, texts=True):
        """(split, Document) of range `part` in hash order; takes what they need from `rooms`."""
        items = [item for span in self._spans(part) for item in _read_run(*span, texts)]
        items.sort(key=_order if texts else lambda item: item[:2])
        limit = self._data.validation_fraction * 256**DIGEST
        for digest, (first, *repeats) in (
            (d, list(g)) for d, g in itertools.groupby(items, key=lambda item: item[0])
        ):
            for _, _, _, document in repeats if texts else ():
                skips.add("exact repeat", document.name, bad=False)
            if self._data.validation_input:
                validates = first[1] == VALIDATION
            else:  # at least one validates, and never all
                low = int.from_bytes(digest, "big") < limit
                validates = digest.hex() == self._first or (low and digest.hex() != self._last)
            split = SPLITS[validates]
            if first[2] <= rooms[split]:
                rooms[split] -= first[2]
                yield split, first[3]


def sort(data: Data, folder: PathLike, piece: Piece = WHOLE, tell: Tell = _silent) -> None:
    """Makes `piece`'s share of the store's parts. `tell(done, of)`: bytes of sorted runs.

    Without `data.validation_input` the documents with the lowest hashes validate, at least one and
    never all. An exact repeat is kept once, in validation if it is in both inputs. `max_bytes`
    takes whole documents in hash order and passes over those that no longer fit; with it, a piece
    also skims the documents before its own. Raises ConfigError: stage `read` is not finished, or
    more than 1% of an input's lines are unusable.
    """
    if prepared(data, folder) is not None:
        return
    corpus = _Corpus(data, folder, piece)
    mine, rooms, skimmed = piece.share(corpus.parts), dict(corpus.rooms), 0
    sizes = [corpus.size(part) for part in mine]
    for done, part in enumerate(mine):
        tell(sum(sizes[:done]), sum(sizes))
        if all(_text_records(folder, split, corpus).facts(part) is not None for split in SPLITS):
            continue
        if any(_limits(data).values()):
            for before in range(skimmed, part):
                for _ in corpus.chosen(before, rooms, Skips(), texts=False):
                    pass  # only what they take of `rooms` matters
            skimmed = part + 1
        skips = Skips()
        documents: dict[str, list[Document]] = {split: [] for split in SPLITS}
        for split, document in corpus.chosen(part, rooms, skips):
            documents[split].append(document)
        for split in SPLITS:
            made_from = corpus.fingerprint
            write_text(documents[split], folder, split, part, made_from, skips=skips.facts())
    tell(sum(sizes), sum(sizes))


def _text_records(folder, split, corpus):
    return Records(storage.at(folder) / split / "text.parts", corpus.fingerprint)


# ---------------------------------------------------------------- merge


def merge(data: Data, folder: PathLike, piece: Piece = WHOLE) -> list[str]:
    """Makes one store of the parts and returns the lines on what was skipped.

    `piece.of`: the number of pieces, by which a missing part's is named. Raises ConfigError: a part
    is missing, or a split has no documents.
    """
    target, lines = storage.at(folder), prepared(data, folder)
    if lines is None:
        corpus = _Corpus(data, target, piece)
        parts = {
            split: [_text_records(target, split, corpus).facts(n) for n in range(corpus.parts)]
            for split in SPLITS
        }
        missing = {n for split in SPLITS for n, facts in enumerate(parts[split]) if facts is None}
        piece.need(missing, corpus.parts, target, "sort")
        for facts in parts["train"]:
            corpus.skips.include(facts["skips"])
        lines = corpus.skips.lines()
        for split in SPLITS:
            if not any(facts["documents"] for facts in parts[split]):
                left = f" ({'; '.join(lines)})" if lines else ""
                raise ConfigError(
                    f"data: no documents for {split} among {corpus.skips.seen:,} read{left}; "
                    "check data.input, data.validation_input, data.validation_fraction and the "
                    "limits on bytes"
                )
        with writing(target):
            for split in SPLITS:
                merge_text(target, split, corpus.parts, corpus.fingerprint)
            write_json(target / "prepared.json", {"data": _corpus_of(data), "skips": lines})
    for done in (target / "reading", *(target / split / "text.parts" for split in SPLITS)):
        storage.remove_folder(done)
    for draft in target.glob("prepared.json.*.tmp"):  # of a merge that was killed
        draft.unlink(missing_ok=True)
    return lines
