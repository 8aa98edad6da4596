"""The documents of a split on disk, with random access to every piece, and their entropies beside
them.

    STORE/SPLIT/index.json                  manifest, written last: a folder without it is no store
    STORE/SPLIT/text-00000.array_record     documents as records of at most RECORD bytes, a file
                                            for each part
    STORE/SPLIT/sizes.npy source_of.npy     text bytes and source number of each document
    STORE/SPLIT/entropies.json, entropies-MODEL-00000.array_record    one float16 per id, likewise

A document of N - 2 bytes has N ids: BOS, bytes + 4, EOS. `entropies(i)[k]` is the entropy (nats) of
the next id after ids 0..k. Files are ArrayRecord with one record per group, so a span costs the
records it touches. Both are written in parts (`parts.py`), and merged: until then readers see what
was there before.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.data import vocab
from blt_jax.data.parts import Records
from blt_jax.storage import PathLike, replacing, write_json
from blt_jax.storage_errors import writing

if TYPE_CHECKING:
    from blt_jax.data.sources import Document

FORMAT = 2
RECORD = 64 << 10  # bytes per record, of text and of entropies alike
ENTROPY = np.dtype("<f2")
ENTROPY_PART = 16 << 20  # ids of a part of entropies, as long as 256 parts are enough
DIGEST = 16  # bytes of a text's hash in the fingerprint


def _write_records(path, items):
    """Writes each of `items` (bytes) as records of at most RECORD bytes; no file where there are
    none. Returns the number of records.
    """
    records = 0
    if items:
        with replacing(path) as temporary:
            writer = ArrayRecordWriter(str(temporary), "group_size:1")
            try:
                for data in items:
                    for begin in range(0, len(data), RECORD):
                        writer.write(data[begin : begin + RECORD])
                        records += 1
            finally:
                writer.close()
    return records


def _file(stem, part):
    return f"{stem}-{part:05d}.array_record"


# ---------------------------------------------------------------- text


def write_text(
    documents: "Sequence[Document]",
    folder: PathLike,
    split: str,
    part: int,
    made_from: str,
    **facts,
) -> None:
    """Writes documents as part number `part` of `folder`/`split`.

    `made_from`: what tells this store from others in the making; `facts`: JSON to keep with the
    part until it is merged. Raises ConfigError for a disk that takes no more.
    """
    target = storage.at(folder) / split
    numbers: dict[str, int] = {}  # of sources
    with writing(target):
        storage.make_folder(target / "text.parts")
        records = _write_records(
            target / _file("text", part), [document.text for document in documents]
        )
        digests = b"".join(
            hashlib.blake2b(document.text, digest_size=DIGEST).digest() for document in documents
        )
        source_of = [numbers.setdefault(document.source, len(numbers)) for document in documents]
        Records(target / "text.parts", made_from).save(
            part,
            {"documents": len(documents), "records": records, "sources": list(numbers), **facts},
            sizes=np.array([len(document.text) for document in documents], np.int64),
            source_of=np.array(source_of, np.int32),
            digests=np.frombuffer(digests, np.uint8).reshape(-1, DIGEST),
        )


def merge_text(
    folder: PathLike, split: str, parts: int, made_from: str, notes: dict[str, Any] | None = None
) -> None:
    """Makes the store of `parts` written parts, in their order.

    `made_from`: as given to `write_text`; `notes`: JSON facts kept in its manifest.
    """
    target = storage.at(folder) / split
    records = Records(target / "text.parts", made_from)
    numbers: dict[str, int] = {}  # of sources
    sizes, source_of, files = [], [], []
    state = hashlib.blake2b(digest_size=8)
    for part in range(parts):
        facts: Any = records.facts(part)
        arrays = records.arrays(part)
        merged = np.array(
            [numbers.setdefault(name, len(numbers)) for name in facts["sources"]], np.int32
        )
        names = [name.encode("utf-8", "surrogatepass") + b"\0" for name in facts["sources"]]
        for digest, source in zip(arrays["digests"], arrays["source_of"], strict=True):
            state.update(digest.tobytes())
            state.update(names[source])
        sizes.append(arrays["sizes"])
        source_of.append(merged[arrays["source_of"]])
        if facts["records"]:
            files.append([_file("text", part), facts["records"]])
    for name, arrays in (("sizes", sizes), ("source_of", source_of)):
        with replacing(target / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, np.concatenate(arrays))
    manifest = {
        "format": FORMAT,
        "documents": sum(map(len, sizes)),
        "text_bytes": int(sum(a.sum() for a in sizes)),
        "sources": list(numbers),
        "files": files,
        "fingerprint": state.hexdigest(),
        "notes": notes or {},
    }
    write_json(target / "index.json", manifest)
    _remove_others(target, "text", files)


def _remove_others(folder, stem, files):
    """Removes files of `stem` that the manifest does not name, and drafts of killed processes."""
    kept = {name for name, _ in files}
    for path in (*folder.glob(f"{stem}-*.array_record"), *folder.glob("*.tmp")):
        if path.name not in kept:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- entropies


class EntropyParts:
    """The entropies of a Store in the making: `ranges[k]` is the (first, end) of the documents of
    part k.

    The parts depend on the store alone: ENTROPY_PART ids or 1/256 of all, and always whole
    documents. `fingerprint`: of what makes the entropies; those of another model stay in use until
    `merge`.
    """

    def __init__(self, store: "Store", fingerprint: str):
        self._store, self.fingerprint = store, fingerprint
        self._stem = f"entropies-{hashlib.blake2b(fingerprint.encode(), digest_size=4).hexdigest()}"
        self._folder = store.folder / f"{self._stem}.parts"
        self._records = Records(self._folder, [fingerprint, store.fingerprint])
        ends = np.cumsum(store.sizes + 2)
        edges = np.arange(1, ends[-1], max(ENTROPY_PART, -(-ends[-1] // 256)))[1:]
        cuts = sorted({0, *np.searchsorted(ends, edges).tolist(), len(store)})
        self.ranges = list(itertools.pairwise(cuts))

    def missing(self) -> list[int]:
        """Numbers of the parts that are not there yet."""
        return [part for part in range(len(self.ranges)) if self._records.facts(part) is None]

    def write(self, part: int, values: Sequence[np.ndarray]) -> None:
        """Writes float arrays [N], one per document of part `part`, as float16.

        Raises ConfigError if their number or a length differs from the store's documents.
        """
        first, end = self.ranges[part]
        for i, (size, entropies) in enumerate(
            itertools.zip_longest(self._store.sizes[first:end], values), start=first
        ):
            if size is None or entropies is None or np.shape(entropies) != (size + 2,):
                raise ConfigError(
                    f"{self._store.folder}: entropies of document {i}: "
                    f"{'none' if entropies is None else np.shape(entropies)}, "
                    f"but the store has {end} documents up to here and this one "
                    f"{0 if size is None else size + 2} ids"
                )
        with writing(self._store.folder):
            storage.make_folder(self._folder)
            data = [np.ascontiguousarray(array, ENTROPY).tobytes() for array in values]
            records = _write_records(self._store.folder / _file(self._stem, part), data)
            self._records.save(part, {"records": records})

    def merge(self) -> None:
        """Puts the parts, which must all be there, in the place of the store's entropies."""
        folder = self._store.folder
        facts: Any = [self._records.facts(part) for part in range(len(self.ranges))]
        files = [[_file(self._stem, n), part["records"]] for n, part in enumerate(facts)]
        manifest = {
            "fingerprint": self.fingerprint,
            "store_fingerprint": self._store.fingerprint,
            "files": files,
        }
        with writing(folder):
            write_json(folder / "entropies.json", manifest)
            _remove_others(folder, "entropies", files)
            for parts in folder.glob("entropies-*.parts"):
                storage.remove_folder(parts)


def write_entropies(
    folder: PathLike, split: str, entropies: Iterable[np.ndarray], fingerprint: str
) -> None:
    """Writes one float array [N] per document of the store, in order, as float16; replaces what is
    there.

    Raises ConfigError if their number or a length differs from the store's documents.
    """
    parts, arrays = EntropyParts(Store(folder, split), fingerprint), iter(entropies)
    for part, (first, end) in enumerate(parts.ranges):
        last = part == len(parts.ranges) - 1
        parts.write(part, list(itertools.islice(arrays, None if last else end - first)))
    parts.merge()


class _Reader:
    """Records of many documents as one file: item i is `counts[i]` values of `dtype`.

    `files`: (name, number of records) of each.
    """

    def __init__(self, folder, files, counts, dtype):
        self._paths, records = [folder / name for name, _ in files], [count for _, count in files]
        there = {path.name for path in folder.iterdir()}
        for path in self._paths:
            if path.name not in there:
                raise ConfigError(
                    f"{path}: missing, though the manifest names it; delete {folder} and prepare "
                    "it again"
                )
        self._dtype, self._per_record = np.dtype(dtype), RECORD // np.dtype(dtype).itemsize
        records_of = -(-counts // self._per_record)
        self._first_record = np.concatenate([[0], np.cumsum(records_of)])  # of each item
        self._first_of_shard = np.concatenate([[0], np.cumsum(records)])
        self._readers = [None] * len(records)

    def __getstate__(self):
        # Worker processes open their own.
        return self.__dict__ | {"_readers": [None] * len(self._readers)}

    def _record(self, number):
        shard = int(np.searchsorted(self._first_of_shard, number, side="right")) - 1
        path = self._paths[shard]
        try:
            if self._readers[shard] is None:
                self._readers[shard] = ArrayRecordReader(
                    str(storage.local(path)), "readahead_buffer_size:0,max_parallelism:0"
                )
            return self._readers[shard].read([int(number - self._first_of_shard[shard])])[0]
        except (RuntimeError, IndexError) as error:
            why = str(error).split(";")[0]
            raise ConfigError(
                f"{path}: damaged ({why}); delete {path.parent} and prepare it again"
            ) from error

    def read(self, item: int, begin: int, end: int) -> np.ndarray:
        """Values begin..end of an item, as a read-only array."""
        first, last = begin // self._per_record, -(-end // self._per_record)
        data = b"".join(self._record(self._first_record[item] + p) for p in range(first, last))
        skip = begin - first * self._per_record
        return np.frombuffer(data, self._dtype)[skip : skip + end - begin]


class Store:
    """One split of a store. Safe to read from several threads, and to send to other processes.

    `sizes` int64 [documents]: text bytes; `source_of` int32 [documents]: index into `source_names`;
    `entropy_fingerprint`: what made the entropies, "" where there are none (yet).
    Raises ConfigError if the folder holds no complete store.
    """

    def __init__(self, folder: PathLike, split: str):
        self.folder = storage.at(folder) / split
        try:
            manifest = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError:
            raise ConfigError(
                f"{self.folder}: no store here (index.json is missing); prepare the data first"
            ) from None
        if manifest["format"] != FORMAT:
            raise ConfigError(
                f"{self.folder}: store format {manifest['format']}, known is {FORMAT}; prepare it "
                "again"
            )
        self.fingerprint, self.notes = manifest["fingerprint"], manifest["notes"]
        self.text_bytes, self.source_names = manifest["text_bytes"], manifest["sources"]
        self.sizes, self.source_of = self._array("sizes.npy"), self._array("source_of.npy")
        self._text = _Reader(self.folder, manifest["files"], self.sizes, np.uint8)
        self.entropy_fingerprint, self._entropies = "", None
        path = self.folder / "entropies.json"
        if path.exists():
            made = json.loads(path.read_text())
            if made["store_fingerprint"] == self.fingerprint:
                self.entropy_fingerprint = made["fingerprint"]
                self._entropies = _Reader(self.folder, made["files"], self.sizes + 2, ENTROPY)

    def _array(self, name):
        try:
            return np.load(storage.local(self.folder / name), allow_pickle=False)
        except (OSError, EOFError, ValueError):
            raise ConfigError(
                f"{self.folder / name}: missing or damaged; delete {self.folder} and prepare it "
                "again"
            ) from None

    def __len__(self):
        return len(self.sizes)

    def __repr__(self):
        return f"Store({self.folder.name}, {self.fingerprint})"

    def text(self, i: int) -> bytes:
        """The bytes of document i."""
        return self._text.read(i, 0, int(self.sizes[i])).tobytes()

    def document(self, i: int) -> tuple[bytes, str]:
        """(text bytes, source) of document i."""
        return self.text(i), self.source_names[self.source_of[i]]

    def ids(self, i: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Ids begin..end of BOS, bytes + 4, EOS: int32."""
        count = int(self.sizes[i]) + 2
        end = count if end is None else min(end, count)
        text = self._text.read(i, max(begin - 1, 0), max(min(end, count - 1) - 1, 0))
        return vocab.encode(text, bos=begin == 0 and end > 0, eos=end == count and begin < end)

    def entropies(self, i: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Float16 entropies (nats) begins..end of document i: one per id. ConfigError where none
        are written.
        """
        if self._entropies is None:
            raise ConfigError(
                f"{self.folder}: has no entropies; run the entropy model over it first"
            )
        return self._entropies.read(i, begin, int(self.sizes[i]) + 2 if end is None else end)
