"""Row index + store -> batches of NumPy arrays. The order is a pure function of (seed, step).

The fields of a batch are those of `batch.py`, for bytes and tokens alike; rows by patches have
`batch.PATCHES` too (see `patching/row_layout.py`). A span's last position has its document's next
id as target, wherever that lies: over an epoch every id but BOS is a target exactly once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from blt_jax import batch, storage
from blt_jax.batch import Batch
from blt_jax.config import BYTE_OFFSET, ConfigError
from blt_jax.data.pack import StartFlags, load_header, mapped
from blt_jax.data.store import Store
from blt_jax.patching import calibrate, drift
from blt_jax.patching.row_layout import row_layout
from blt_jax.storage import PathLike

# without end: grain's own endless repeat overflows a length when batches hold one row
EPOCHS = 2**30
WALKED = 1 << 20  # rows whose sources are counted one by one: seconds
THREADS, AHEAD = 4, 8  # of the prefetching iterator: threads, batches held ready


def span_table(index: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """(row_offsets int64 [R + 1], spans int64 [S, 3]): row r is spans[row_offsets[r] :
    row_offsets[r + 1]].

    A span is (document, begin, end); segment s of a row, from 1 up, is its span s - 1.
    """
    folder = storage.at(index)
    return mapped(folder / "rows.npy"), mapped(folder / "spans.npy")


class RowSource:
    """The rows of an index, at random: `source[r]` is a dict of [L] (and [P]) arrays, fields of a
    batch by `batch.of_row`. Threads may share it.

    Raises ConfigError if the index was made from another store.
    """

    def __init__(self, index: PathLike, store: Store):
        self.header = load_header(index)
        if self.header["store_fingerprint"] != store.fingerprint:
            raise ConfigError(
                f"{index}: made from another store than {store.folder}; delete it and prepare again"
            )
        self._index, self._store = storage.at(index), store
        self._row_offsets, self._spans = span_table(index)
        self._length, self._slots = self.header["row_positions"], self.header["row_patches"]
        self._flags = StartFlags(store, index) if self._slots else None
        self._tokens = None
        if self.header["asked"]["kind"] == "tokens":
            self._tokens = mapped(self._index / "tokens.npy")
            self._offsets = mapped(self._index / "offsets.npy")
            self._token_bytes = mapped(self._index / "token_bytes.npy")

    def __len__(self):
        return self.header["rows"]

    def __repr__(self):
        return f"RowSource({self._index.parent.name}/{self._index.name}, {self._store.fingerprint})"

    def _ids(self, document, begin, end):
        if self._tokens is None:
            return self._store.ids(document, begin, end)
        first, last = self._offsets[document : document + 2]
        return self._tokens[first + begin : min(first + end, last)]

    def __getitem__(self, number):
        row = batch.empty(batch.READ + batch.TARGETS, self._length)
        starts_L, at = np.zeros(self._length, bool), 0
        first, last = self._row_offsets[number : number + 2]
        for segment, (document, begin, end) in enumerate(self._spans[first:last].tolist(), start=1):
            ids = self._ids(document, begin, end + 1)  # with the last target, if there is one
            size, targets = end - begin, ids[1:]
            known = slice(at, at + len(targets))  # nothing follows an EOS
            row["ids_L"][at : at + size] = ids[:size]
            row["segment_L"][at : at + size] = segment
            row["targets_L"][known] = targets
            row["loss_mask_L"][known] = 1
            row["bytes_L"][known] = (
                targets >= BYTE_OFFSET if self._tokens is None else self._token_bytes[targets]
            )
            if self._flags:
                starts_L[at : at + size] = self._flags.read(document, begin, end)
            at += size
        if self._flags:
            layout = row_layout(starts_L, row["segment_L"], self._slots)
            row |= dict(zip(map(batch.of_row, batch.PATCHES), layout, strict=True))
        return row

    def batch(self, numbers: Sequence[int], size: int = 0) -> Batch:
        """The rows `numbers` as a batch, with empty rows after them up to `size` rows."""
        rows = [self[n] for n in numbers]
        fields = batch.READ + batch.TARGETS + (batch.PATCHES if self._flags else ())
        missing = max(size - len(rows), 0)
        return batch.stacked(rows + [batch.empty(fields, self._length, self._slots)] * missing)


def train_batches(
    index: PathLike,
    store: Store,
    rows: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.MapDataset:
    """A grain MapDataset without end: item [step] is this process's part of batch `step` of `rows`
    rows.

    Rows are shuffled anew in each epoch; a batch may span two. All processes together hold the same
    batch whatever their number, which must divide `rows`.
    """
    source, mine = RowSource(index, store), _share(rows, process_index, process_count)
    return (
        _row_order(len(source), seed)
        .batch(rows)
        .map(lambda numbers: source.batch(numbers[mine].tolist()))
    )


def sources_read(
    index: PathLike, store: Store, rows: int, seed: int, steps: int
) -> dict[str, dict[str, float]]:
    """What the first `steps` batches of `train_batches` hold: {source: {"text_bytes", "share",
    "epochs"}}.

    `epochs`: times that the source's text was read; `share`: of all text bytes read. Whole passes
    over the index and up to WALKED rows of the last are counted; a longer one is taken to hold the
    index's own shares, as it nearly does.
    """
    header = load_header(index)
    sources, number = header["sources"], header["rows"]
    passes, rest = divmod(steps * rows, number)
    walked = 0 < rest <= WALKED
    per_pass_S = np.array([facts["positions"] for facts in sources.values()])
    read_S = per_pass_S * (passes if walked else steps * rows / number)
    if walked:
        offsets, spans = span_table(index)
        order, taken_R = _row_order(number, seed), np.zeros(number, bool)
        taken_R[[order[passes * number + i] for i in range(rest)]] = True
        document, begin, end = spans[np.repeat(taken_R, np.diff(offsets))].T
        read_S = read_S + np.bincount(
            store.source_of[document], weights=end - begin, minlength=len(read_S)
        )
    epochs_S = np.array(
        [
            read / max(facts["positions"], 1) * facts["readings"]
            for read, facts in zip(read_S, sources.values(), strict=True)
        ]
    )
    text_S = epochs_S * np.bincount(store.source_of, weights=store.sizes, minlength=len(read_S))
    return {
        source: {"text_bytes": round(text), "share": text / text_S.sum(), "epochs": float(epochs)}
        for source, text, epochs in zip(sources, text_S.tolist(), epochs_S, strict=True)
    }


def patch_drift(index: PathLike, store: Store, calibration: PathLike) -> drift.Drift:
    """The `Drift` that watches training on an index, by the record of a calibration (a file).

    Raises ConfigError if that is damaged or of another store.
    """
    fingerprints = dict(corpus=store.fingerprint, entropy_model=store.entropy_fingerprint)
    return drift.watch(calibrate.load(calibration, **fingerprints), load_header(index))


def _row_order(number, seed):
    """A grain MapDataset: the rows of an index, shuffled anew in each pass."""
    return grain.MapDataset.range(number).seed(seed).shuffle().repeat(EPOCHS)


def iterate_from(batches: grain.MapDataset, step: int = 0) -> Any:
    """Iterator, with `close`, of Batches `step`, `step` + 1, ...: made ahead by threads."""
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    return iter(batches[step:].to_iter_dataset(options))


def validation_batches(
    index: PathLike, store: Store, rows: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[list[int], Batch]]:
    """Yields (row numbers, batch) over all rows once, in order; the last batch is filled with empty
    rows.

    A process gets its part of each batch, of rows / process_count rows, and the numbers of the real
    ones.
    """
    source, mine = RowSource(index, store), _share(rows, process_index, process_count)
    for first in range(0, len(source), rows):
        numbers = list(range(first, min(first + rows, len(source))))[mine]
        yield numbers, source.batch(numbers, rows // process_count)


def _share(rows, process_index, process_count):
    if rows % process_count:
        raise ConfigError(
            f"train.rows = {rows}: must be a multiple of the {process_count} processes"
        )
    size = rows // process_count
    return slice(process_index * size, (process_index + 1) * size)
