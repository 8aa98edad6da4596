"""Row index: which spans of which documents make up each row, so that rows are full and nothing is
dropped.

    header.json    counts, waste, means; written last: without it there is no index
    spans.npy      int64 [S, 3]: document, begin, end (positions of its id stream)
    rows.npy       int64 [R + 1]: row r is spans rows[r] to rows[r + 1]
    starts.npy     uint8: packed start flags, each document beginning at a whole byte
                   (of models whose patches are given)
    tokens.npy     int32: tokens of all documents end to end (of token models), with
    offsets.npy    int64 [documents + 1], and
    token_bytes.npy  int32 [vocabulary]: bytes that each token stands for

Rows with a patch budget are made by `pool.py`; which documents, and how often, by `mixture.py`.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.data import pool
from blt_jax.data.bpe import Bpe
from blt_jax.data.mixture import reading_order
from blt_jax.data.store import Store
from blt_jax.patching.row_layout import PatchOverflow
from blt_jax.storage import PathLike, replacing, write_json
from blt_jax.storage_errors import writing

FORMAT = 2
FILES = (
    "header.json",
    "spans.npy",
    "rows.npy",
    "starts.npy",
    "tokens.npy",
    "offsets.npy",
    "token_bytes.npy",
)
LONGEST = 64  # patch lengths beyond are counted together
TRIAL_ROWS = 2048  # rows, about, of a trial packing that chooses P
# P tried, as multiples of the mean patches of a full row
TRIALS = (1.0, 1.004, 1.01, 1.02, 1.04, 1.08)
CHUNK = 1024  # rows written at a time


@contextlib.contextmanager
def _npy(path, dtype, row=()):
    """Yields an `_Npy` to append to; the file is there, whole, at the end."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        grown = _Npy(file, np.dtype(dtype), row)
        yield grown
        grown.finish()


class _Npy:
    """An .npy file of unknown length."""

    def __init__(self, file, dtype, row):
        self._file, self._dtype, self._row, self.length = file, dtype, row, 0
        self._head()

    def _head(self):
        # NumPy leaves room in the header for the first axis to grow: rewriting it keeps its size.
        shape = (self.length, *self._row)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values: Any) -> None:
        values = np.ascontiguousarray(values, self._dtype)
        self.length += len(values)
        self._file.write(values.data)

    def finish(self) -> None:
        self._file.seek(0)
        self._head()


# ---------------------------------------------------------------- the index


def build_index(
    store: Store,
    folder: PathLike,
    *,
    positions: int,
    patches: int = 0,
    starts_of: Callable[[int], np.ndarray] | None = None,
    tokenizer: Bpe | None = None,
    fingerprint: str = "",
    weights: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Writes the row index of `store` into `folder`, unless it is there already; returns its
    header.

    `positions`: L, per row. For a model whose `patches` are "given": `starts_of(i)` -> bool [N]
    start flags of document i, and `patches`: P, or 0 to choose the P that wastes least of both
    budgets. For a model that `reads` tokens: `tokenizer`. `fingerprint`: of what `starts_of` or the
    tokenizer depend on; another one makes the index anew. `weights`: {source: how often its
    documents are read, against 1 for sources not named} (see `mixture.py`).
    """
    out = storage.at(folder)
    request = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "store_fingerprint": store.fingerprint,
        "kind": "tokens" if tokenizer else "patches" if starts_of else "bytes",
        "positions": positions,
        "patches": patches,
    }
    if weights:
        request["weights"] = weights
    if (out / "header.json").exists():
        header = load_header(out)
        if header["asked"] == request:
            return header
    if positions < 8 or (starts_of and patches == 1):
        raise ConfigError(
            f"row index {out}: rows of {positions} positions and {patches} patches are too small"
        )
    order, passes = reading_order(store, weights)
    with writing(out):
        storage.make_folder(out)
        # The header first: what follows is no index until there is a new one. *.tmp: drafts that a
        # killed process left.
        for path in (*(out / name for name in FILES), *out.glob("*.tmp")):
            path.unlink(missing_ok=True)
        header = {
            "asked": request,
            "row_positions": positions,
            "store_fingerprint": store.fingerprint,
            "passes": passes,
        }
        slots, sizes = 0, store.sizes + 2
        if starts_of:
            patches_D, lengths = _write_starts(store, out, starts_of)
            read = StartFlags(store, out)
            header["document_patches"] = int(patches_D[order].sum())
            # [k]: patches of k positions of the store; the last entry: of more than LONGEST
            header["patch_lengths"] = lengths.tolist()
            slots = patches or _choose_patches(read, order, positions, patches_D, sizes)
            rows = pool.rows(_opened(read, order), positions, slots)
        else:
            if tokenizer:
                sizes = _write_tokens(store, out, tokenizer)
            rows = _stream(order.tolist(), sizes[order].tolist(), positions)
        header |= _write_rows(store, out, rows, order, positions, slots)
        write_json(out / "header.json", header)
    return header


def load_header(index: PathLike) -> dict[str, Any]:
    """The header of a finished index. Raises ConfigError where there is none."""
    path = storage.at(index) / "header.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{index}: no row index here (header.json is missing); prepare the data first"
        ) from None


def mapped(path: PathLike) -> np.ndarray:
    """An .npy file as a plain array over its mapped pages; slices of `np.memmap` are slow."""
    return np.asarray(np.load(storage.local(path), mmap_mode="r"))


class StartFlags:
    """The start flags of an index, by document and span."""

    def __init__(self, store: Store, index: PathLike):
        sizes = -(-(store.sizes + 2) // 8)
        self._counts = store.sizes + 2
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._packed = mapped(storage.at(index) / "starts.npy")

    def read(self, document: int, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Bool flags of positions begin..end: the rule's own, before a row forces any."""
        end = int(self._counts[document]) if end is None else end
        first = int(self._first[document])
        packed = self._packed[first + begin // 8 : first + -(-end // 8)]
        return np.unpackbits(packed)[begin % 8 :][: end - begin].astype(bool)


def _stream(order, sizes, positions):
    """Rows without a patch budget: the documents one after another."""
    row: list[pool.Span] = []
    room = positions
    for number, size in zip(order, sizes, strict=True):
        at = 0
        while at < size:
            n = min(size - at, room)
            row.append((number, at, at + n, 0))
            at += n
            room -= n
            if not room:
                yield row
                row, room = [], positions
    if row:
        yield row


def _opened(flags, order):
    for number in order.tolist():
        own = flags.read(number)
        counts = np.zeros(len(own) + 1, np.int32)
        np.cumsum(own, out=counts[1:])
        yield pool.Open(number, counts)


def _choose_patches(flags, order, positions, patches_D, sizes_D):
    """The P near the mean patches of a full row that wastes least of both budgets.

    Tried on the first documents, packed to the end, with multiples of their own mean: the first
    rows of a longer packing would tell too little, for the pool puts off what does not fit.
    """

    def slots(documents, share):
        mean = share * positions * patches_D[documents].sum() / sizes_D[documents].sum()
        return max(2, int(np.ceil(mean)))

    sample = order[: 1 + np.searchsorted(np.cumsum(sizes_D[order]), TRIAL_ROWS * positions)]

    def wasted(share):
        most = slots(sample, share)
        rows = list(pool.rows(_opened(flags, sample), positions, most))
        used = sizes_D[sample].sum()
        spent = sum(span[3] for row in rows for span in row)
        return 2 - used / (len(rows) * positions) - spent / (len(rows) * most)

    best, least = TRIALS[0], wasted(TRIALS[0])
    for share in TRIALS[1:]:  # waste falls, then grows by as much as P
        waste = wasted(share)
        if waste >= least:
            break
        best, least = share, waste
    return slots(order, best)


def _write_starts(store, out, starts_of):
    """Writes starts.npy; returns patches of each document, int64, and how many there are of each
    length.
    """
    patches_D, lengths = np.zeros(len(store), np.int64), np.zeros(LONGEST + 2, np.int64)
    with _npy(out / "starts.npy", np.uint8) as file:
        for number in range(len(store)):
            flags = starts_of(number)
            if flags.shape != (store.sizes[number] + 2,):
                why = f"{flags.shape} start flags for document {number}"
                raise ConfigError(f"row index {out}: {why}")
            file.append(np.packbits(flags))
            own = np.diff(np.flatnonzero(flags), append=len(flags))
            patches_D[number] = len(own)
            lengths += np.bincount(np.minimum(own, LONGEST + 1), minlength=LONGEST + 2)
    return patches_D, lengths


def _write_tokens(store, out, tokenizer):
    """tokens.npy and offsets.npy; returns tokens of each document, int64."""
    sizes = []
    with _npy(out / "tokens.npy", np.int32) as file:
        for number in range(len(store)):
            tokens = tokenizer.encode(store.text(number))
            file.append(tokens)
            sizes.append(len(tokens))
    with _npy(out / "offsets.npy", np.int64) as file:
        file.append(np.cumsum([0, *sizes]))
    with _npy(out / "token_bytes.npy", np.int32) as file:
        file.append(tokenizer.token_bytes)
    return np.array(sizes)


def _write_rows(store, out, rows, order, positions, slots):
    """spans.npy and rows.npy; returns what the header says about them."""
    by_source = np.zeros((len(store.source_names), 2), np.int64)  # positions, patches
    text_R, patches_R = [], []  # of each row
    rows = iter(rows)
    with (
        _npy(out / "spans.npy", np.int64, (3,)) as spans,
        _npy(out / "rows.npy", np.int64) as offsets,
    ):
        offsets.append([0])
        while chunk := list(itertools.islice(rows, CHUNK)):
            table = np.array([span for row in chunk for span in row], np.int64)
            begins = np.cumsum([0] + [len(row) for row in chunk[:-1]])
            document, begin, end, patches = table.T
            patches_R.append(np.add.reduceat(patches, begins))
            if slots and patches_R[-1].max() > slots:
                row = offsets.length - 1 + int(patches_R[-1].argmax())
                raise PatchOverflow(
                    f"row {row} of {out}: {patches_R[-1].max()} patches, the budget is {slots}"
                )
            # Targets are the positions after: BOS is none, EOS no text.
            text_R.append(np.add.reduceat(np.minimum(end, store.sizes[document]) - begin, begins))
            used = np.stack([end - begin, patches], axis=1)
            np.add.at(by_source, store.source_of[document], used)
            offsets.append(spans.length + np.append(begins[1:], len(table)))
            spans.append(table[:, :3])
    number = offsets.length - 1
    used, spent = by_source.sum(axis=0).tolist()
    count = lambda documents: np.bincount(
        store.source_of[documents], store.sizes[documents], len(store.source_names)
    )
    text_S, read_S = count(np.arange(len(store))), count(order)
    text_bytes = int(read_S.sum())
    facts = {
        "rows": number,
        "row_patches": slots,
        "positions": used,
        "patches": spent,
        "text_bytes": text_bytes,
        "row_text_bytes": text_bytes / number,
        "spans": spans.length,
        "byte_waste": 1 - used / (number * positions),
        "sources": {
            name: {
                "text_bytes": int(read),
                "positions": int(p),
                "patches": int(q),
                "share": float(read / text_bytes),  # of the text bytes that the index reads
                # of the source, when all rows are read once
                "readings": float(read / max(text, 1)),
            }
            for name, text, read, (p, q) in zip(
                store.source_names, text_S, read_S, by_source, strict=True
            )
        },
    }
    if slots:
        facts["patch_waste"] = 1 - spent / (number * slots)
        facts["positions_per_patch"] = used / spent
        facts["text_bytes_per_patch"] = text_bytes / spent
        text_R, patches_R = np.concatenate(text_R), np.concatenate(patches_R)
        # What shuffled rows scatter by: variance of (text - mean x patches) per patch, bytes^2.
        facts["patch_noise"] = float(((text_R - text_bytes / spent * patches_R) ** 2).sum() / spent)
    elif (out / "tokens.npy").exists():
        facts["text_bytes_per_token"] = text_bytes / used
    return facts
