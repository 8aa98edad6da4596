"""The documents of a split on disk, with random access to every piece, and their entropies beside them.

    STORE/SPLIT/index.json                  manifest, written last: a folder without it is no store
    STORE/SPLIT/text-00000.array_record     documents as pieces of at most PIECE bytes
    STORE/SPLIT/sizes.npy source_of.npy     text bytes and source number of each document
    STORE/SPLIT/entropies.json, entropies-00000.array_record    one float16 per id, likewise in pieces

A document of N - 2 bytes has N ids: BOS, bytes + 4, EOS. `entropies(i)[k]` is the entropy (nats) of the
next id after ids 0..k. Files are ArrayRecord with one record per group, so a span costs the pieces it touches.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from blt_jax.config import ConfigError
from blt_jax.data import vocab

FORMAT = 1
PIECE = 64 << 10  # bytes per record, of text and of entropies alike
SHARD = 256 << 20  # bytes per file, before compression
ENTROPY = np.dtype("<f2")


@contextlib.contextmanager
def writing(path):
    """Turns a full disk or a folder that cannot be written into one clear line; other errors pass."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # ArrayRecord reports the system's words in a RuntimeError
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            raise ConfigError(f"{path}: the disk is full; free some space and run the same command again") from error
        if isinstance(error, OSError):
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def write_json(path, value):
    """Atomic: the file is there whole or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1))
    os.replace(temporary, path)


class _Pieces:
    """Writes records to numbered shards."""

    def __init__(self, folder, stem):
        self._folder, self._stem = folder, stem
        self._writer, self._room, self.records = None, 0, []

    def write(self, data):
        """Appends `data` as pieces of PIECE bytes."""
        for begin in range(0, len(data), PIECE):
            if self._room <= 0:
                self.close()
                self._writer = ArrayRecordWriter(
                    str(self._folder / _shard(self._stem, len(self.records))), "group_size:1"
                )
                self._room = SHARD
                self.records.append(0)
            self._writer.write(bytes(data[begin : begin + PIECE]))
            self._room -= PIECE
            self.records[-1] += 1

    def close(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _shard(stem, number):
    return f"{stem}-{number:05d}.array_record"


def _clear(folder, *stems):
    """Removes what `stems` left in an earlier attempt, manifests first."""
    for stem in stems:
        (folder / f"{stem}.json").unlink(missing_ok=True)
        for path in folder.glob(f"{stem}-*.array_record"):
            path.unlink()


def write_store(documents, folder, split, notes=None):
    """Writes `documents` (`.text` bytes, `.source` str), in the order they come, as `folder`/`split`.

    Replaces what is there, entropies included. `notes`: JSON facts kept in the manifest.
    Raises ConfigError for no documents or a disk that takes no more.
    """
    folder = Path(folder) / split
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder, "index", "entropies", "text")
        pieces, sources, sizes, source_of = _Pieces(folder, "text"), {}, [], []
        state = hashlib.blake2b(digest_size=8)
        try:
            for document in documents:
                pieces.write(document.text)
                sizes.append(len(document.text))
                source_of.append(sources.setdefault(document.source, len(sources)))
                state.update(hashlib.blake2b(document.text, digest_size=16).digest())
                state.update(document.source.encode("utf-8", "surrogatepass") + b"\0")
        finally:
            pieces.close()
        if not sizes:
            raise ConfigError(f"{folder}: no documents to store")
        np.save(folder / "sizes.npy", np.array(sizes, np.int64))
        np.save(folder / "source_of.npy", np.array(source_of, np.int32))
        manifest = {
            "format": FORMAT,
            "documents": len(sizes),
            "text_bytes": sum(sizes),
            "sources": list(sources),
            "records": pieces.records,
            "fingerprint": state.hexdigest(),
            "notes": notes or {},
        }
        write_json(folder / "index.json", manifest)


def write_entropies(folder, split, entropies, fingerprint):
    """Writes one float array [N] per document of the store, in order, as float16; replaces what is there.

    Raises ConfigError if their number or a length differs from the store's documents.
    """
    store = Store(folder, split)
    with writing(store.folder):
        _clear(store.folder, "entropies")
        pieces = _Pieces(store.folder, "entropies")
        try:
            for i, (size, values) in enumerate(itertools.zip_longest(store.sizes, entropies)):
                if size is None or values is None or np.shape(values) != (size + 2,):
                    raise ConfigError(
                        f"{store.folder}: entropies of document {i}: {'none' if values is None else np.shape(values)}, "
                        f"but the store has {len(store)} documents and this one {0 if size is None else size + 2} ids"
                    )
                pieces.write(np.ascontiguousarray(values, ENTROPY).tobytes())
        finally:
            pieces.close()
        manifest = {
            "fingerprint": fingerprint,
            "store_fingerprint": store.fingerprint,
            "records": pieces.records,
        }
        write_json(store.folder / "entropies.json", manifest)


class _Reader:
    """Pieces of many documents as one file: item i is `counts[i]` values of `dtype`."""

    def __init__(self, folder, stem, records, counts, dtype):
        self._paths = [folder / _shard(stem, n) for n in range(len(records))]
        for path in self._paths:
            if not path.exists():
                raise ConfigError(
                    f"{path}: missing, though the manifest names it; delete {folder} and prepare it again"
                )
        self._dtype, self._per_piece = np.dtype(dtype), PIECE // np.dtype(dtype).itemsize
        self._first_record = np.concatenate([[0], np.cumsum(-(-counts // self._per_piece))])  # of each item
        self._first_of_shard = np.concatenate([[0], np.cumsum(records)])
        self._readers = [None] * len(records)

    def __getstate__(self):
        return self.__dict__ | {"_readers": [None] * len(self._readers)}  # worker processes open their own

    def _record(self, number):
        shard = int(np.searchsorted(self._first_of_shard, number, side="right")) - 1
        path = self._paths[shard]
        try:
            if self._readers[shard] is None:
                self._readers[shard] = ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
            return self._readers[shard].read([int(number - self._first_of_shard[shard])])[0]
        except (RuntimeError, IndexError) as error:
            why = str(error).split(";")[0]
            raise ConfigError(f"{path}: damaged ({why}); delete {path.parent} and prepare it again") from error

    def read(self, item, begin, end):
        """Values begin..end of an item, as a read-only array."""
        first, last = begin // self._per_piece, -(-end // self._per_piece)
        data = b"".join(self._record(self._first_record[item] + p) for p in range(first, last))
        skip = begin - first * self._per_piece
        return np.frombuffer(data, self._dtype)[skip : skip + end - begin]


class Store:
    """One split of a store. Safe to read from several threads, and to send to other processes.

    `sizes` int64 [documents]: text bytes; `source_of` int32 [documents]: index into `source_names`;
    `entropy_fingerprint`: what made the entropies, "" where there are none (yet).
    Raises ConfigError if the folder holds no complete store.
    """

    def __init__(self, folder, split):
        self.folder = Path(folder) / split
        try:
            manifest = json.loads((self.folder / "index.json").read_text())
        except FileNotFoundError:
            raise ConfigError(f"{self.folder}: no store here (index.json is missing); prepare the data first") from None
        if manifest["format"] != FORMAT:
            raise ConfigError(f"{self.folder}: store format {manifest['format']}, known is {FORMAT}; prepare it again")
        self.fingerprint, self.notes = manifest["fingerprint"], manifest["notes"]
        self.text_bytes, self.source_names = manifest["text_bytes"], manifest["sources"]
        self.sizes, self.source_of = self._array("sizes.npy"), self._array("source_of.npy")
        self._text = _Reader(self.folder, "text", manifest["records"], self.sizes, np.uint8)
        self.entropy_fingerprint, self._entropies = "", None
        path = self.folder / "entropies.json"
        if path.exists():
            found = json.loads(path.read_text())
            if found["store_fingerprint"] == self.fingerprint:
                self.entropy_fingerprint = found["fingerprint"]
                self._entropies = _Reader(self.folder, "entropies", found["records"], self.sizes + 2, ENTROPY)

    def _array(self, name):
        try:
            return np.load(self.folder / name, allow_pickle=False)
        except (OSError, EOFError, ValueError):
            raise ConfigError(
                f"{self.folder / name}: missing or damaged; delete {self.folder} and prepare it again"
            ) from None

    def __len__(self):
        return len(self.sizes)

    def __repr__(self):
        return f"Store({self.folder.name}, {self.fingerprint})"

    def text(self, i) -> bytes:
        return self._text.read(i, 0, int(self.sizes[i])).tobytes()

    def document(self, i):
        """(text bytes, source) of document i."""
        return self.text(i), self.source_names[self.source_of[i]]

    def ids(self, i, begin=0, end=None):
        """Ids begin..end of BOS, bytes + 4, EOS: int32."""
        count = int(self.sizes[i]) + 2
        end = count if end is None else min(end, count)
        text = self._text.read(i, max(begin - 1, 0), max(min(end, count - 1) - 1, 0))
        return vocab.encode(text, bos=begin == 0 and end > 0, eos=end == count and begin < end)

    def entropies(self, i, begin=0, end=None):
        """Float16 entropies (nats) begins..end of document i: one per id. ConfigError where none are written."""
        if self._entropies is None:
            raise ConfigError(f"{self.folder}: has no entropies; run the entropy model over it first")
        return self._entropies.read(i, begin, int(self.sizes[i]) + 2 if end is None else end)
