"""Row index: which spans of which documents make up each row, so that rows are full and nothing is dropped.

    header.json    counts, waste, means; written last: without it there is no index
    spans.npy      int64 [S, 3]: document, begin, end (positions of its id stream)
    rows.npy       int64 [R + 1]: row r is spans rows[r] to rows[r + 1]
    starts.npy     uint8: packed start flags, each document beginning at a whole byte (patched models)
    tokens.npy     int32: tokens of all documents end to end, with offsets.npy int64 [documents + 1] (token models)

A row has two budgets: L positions and, for patched models, P patches. Rows of dense text (short patches)
would run out of patches, rows of sparse text out of bytes. So the packer holds a pool of open documents and
ends a span early where continuing with a document of the opposite density makes both budgets come out.
"""

import itertools
import json
from pathlib import Path

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.data.store import write_json, writing
from blt_jax.patching.layout import PatchOverflow

FORMAT = 1
FILES = ("header.json", "spans.npy", "rows.npy", "starts.npy", "tokens.npy", "offsets.npy", "token_bytes.npy")
POOL = 256  # documents that are open for packing
LONGEST = 64  # patch lengths beyond are counted together
TRIAL_ROWS = 16_384  # rows of a trial packing that chooses P
TRIALS = (1.0, 1.004, 1.01, 1.02, 1.04, 1.08)  # P tried, as multiples of the mean patches of a full row


class _Npy:
    """An .npy file of unknown length, appended to."""

    def __init__(self, path, dtype, row=()):
        self._file, self._dtype, self._row, self.length = open(path, "wb"), np.dtype(dtype), row, 0
        self._head()

    def _head(self):
        # NumPy leaves room in the header for the first axis to grow, so that rewriting it keeps its size.
        shape = (self.length, *self._row)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values):
        values = np.ascontiguousarray(values, self._dtype)
        self.length += len(values)
        self._file.write(values.data)

    def close(self):
        self._file.seek(0)
        self._head()
        self._file.close()


# ---------------------------------------------------------------- packing


class _Open:
    """A document that is being packed. `counts` int32 [N + 1]: its starts before each position."""

    def __init__(self, number, counts):
        self.number, self.at, self._counts = number, 0, counts
        self.left = len(counts) - 1
        self.density = int(counts[-1]) / self.left  # patches per position of what is left

    def cost(self, n):
        """Patches of its next n positions as a span: the first two always start one."""
        forced = min(n, 2)
        return forced + int(self._counts[self.at + n]) - int(self._counts[self.at + forced])

    def take(self, n):
        """The next n positions as a span (document, begin, end, patches)."""
        span = (self.number, self.at, self.at + n, self.cost(n))
        self.at += n
        self.left -= n
        self.density = (int(self._counts[-1]) - int(self._counts[self.at])) / self.left if self.left else 0.0
        return span


def _pack_stream(sizes, positions):
    """Rows without a patch budget: the documents one after another."""
    row, room = [], positions
    for number, size in enumerate(sizes):
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


def _pack_pool(documents, positions, patches):
    """Yields rows, lists of (document, begin, end, patches), of at most `positions` and `patches`."""
    pool = list(itertools.islice(documents, POOL))  # oldest first
    crumb = max(positions // 512, 1)  # not worth another span
    while pool:
        row, room, slots = [], positions, patches
        while pool and slots >= 2 and (room > crumb or not row):
            spans = _next_spans(pool, room, slots, slack=patches // 400)
            for document, n in spans:
                row.append(document.take(n))
                room -= n
                slots -= row[-1][3]
                if not document.left:
                    pool.remove(document)
                    pool.extend(itertools.islice(documents, 1))
        yield row


def _next_spans(pool, room, slots, slack):
    """[(document, positions)]: what to add to a row that has `room` positions and `slots` patches left.

    The oldest document goes first, whole if the others of the pool can still use up the rest of both budgets.
    Otherwise it is cut, and a document of the opposite density fills the row up.
    """
    main, others = pool[0], pool[1:]
    n = min(room, main.left)
    cost = main.cost(n)
    room_after, slots_after = room - n, slots - cost
    if not others:
        return [(main, _most(main, n, slots))]
    sparsest, densest = min(others, key=_density), max(others, key=_density)
    if slots_after >= 0:
        if n == room and slots_after <= slack:
            return [(main, n)]
        if n < room and sparsest.density * room_after <= slots_after <= densest.density * room_after:
            return [(main, n)]

    dense = cost * room > slots * n
    filler = sparsest if dense else densest
    if (filler.density * room >= slots) == dense:  # nothing in the pool can make up for it
        return [(main, _most(main, n, slots))]
    both = lambda x: main.cost(x) + filler.cost(min(room - x, filler.left))  # noqa: E731
    least = max(room - filler.left, 0)  # of main, with all of the filler
    if least >= n or (both(least) > slots if dense else both(least) <= slots):
        return [(filler, _most(filler, min(room, filler.left), slots))]
    if not dense and both(n) > slots:  # all of main is too short for this filler: another will follow
        return [(main, n)]
    # `both` grows with x where main is the dense one, and falls where it is the sparse one.
    fits, fails = (least, n + 1) if dense else (n, least)
    while abs(fails - fits) > 1:
        x = (fits + fails) // 2
        if both(x) <= slots:
            fits = x
        else:
            fails = x
    return [(document, x) for document, x in ((main, fits), (filler, min(room - fits, filler.left))) if x]


def _density(document):
    return document.density


def _most(document, n, slots):
    """The longest span of up to n positions that costs at most `slots`."""
    if document.cost(n) <= slots:
        return n
    fits, fails = 0, n
    while fails - fits > 1:
        x = (fits + fails) // 2
        if document.cost(x) <= slots:
            fits = x
        else:
            fails = x
    return fits


# ---------------------------------------------------------------- the index


def build_index(store, out, *, positions, patches=0, starts_of=None, tokenizer=None, fingerprint=""):
    """Writes the row index of `store` into folder `out`, unless it is there already; returns its header.

    `positions`: L, per row. Patched models: `starts_of(i)` -> bool [N] start flags of document i, and
    `patches`: P, or 0 to choose the P that wastes least of both budgets. Token models: `tokenizer` (`bpe.Bpe`).
    `fingerprint`: what `starts_of` or the tokenizer depend on; another one makes the index anew.
    """
    out = Path(out)
    asked = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "store_fingerprint": store.fingerprint,
        "kind": "tokens" if tokenizer else "patches" if starts_of else "bytes",
        "positions": positions,
        "patches": patches,
    }
    if (out / "header.json").exists():
        header = load_header(out)
        if header["asked"] == asked:
            return header
    if positions < 8 or (starts_of and patches == 1):
        raise ConfigError(f"row index {out}: rows of {positions} positions and {patches} patches are too small")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # the header first: what follows is no index until there is a new one
            (out / name).unlink(missing_ok=True)
        header = {"asked": asked, "row_positions": positions, "store_fingerprint": store.fingerprint}
        if tokenizer:
            sizes = _write_tokens(store, out, tokenizer)
            header |= _write_rows(store, out, _pack_stream(sizes, positions), positions, 0)
        elif starts_of:
            header |= _write_starts(store, out, starts_of)
            read = StartFlags(store, out)
            slots = patches or _choose_patches(read, len(store), positions, header["document_patches"])
            header |= _write_rows(store, out, _pack_pool(_opened(read, len(store)), positions, slots), positions, slots)
        else:
            header |= _write_rows(store, out, _pack_stream(store.sizes + 2, positions), positions, 0)
        write_json(out / "header.json", header)
    return header


def load_header(index):
    """The header of a finished index. Raises ConfigError where there is none."""
    path = Path(index) / "header.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{index}: no row index here (header.json is missing); prepare the data first") from None


class StartFlags:
    """The start flags of an index, by document and span."""

    def __init__(self, store, index):
        sizes = -(-(store.sizes + 2) // 8)
        self._counts = store.sizes + 2
        self.positions = int(self._counts.sum())
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._packed = np.load(Path(index) / "starts.npy", mmap_mode="r")

    def read(self, document, begin=0, end=None):
        """Bool flags of positions begin..end: the rule's own, before a row forces any."""
        end = int(self._counts[document]) if end is None else end
        first = int(self._first[document])
        packed = self._packed[first + begin // 8 : first + -(-end // 8)]
        return np.unpackbits(packed)[begin % 8 :][: end - begin].astype(bool)


def _opened(flags, documents):
    for number in range(documents):
        own = flags.read(number)
        counts = np.zeros(len(own) + 1, np.int32)
        np.cumsum(own, out=counts[1:])
        yield _Open(number, counts)


def _choose_patches(flags, documents, positions, document_patches):
    """The P near the mean patches of a full row that wastes least of both budgets on the first rows."""
    mean = positions * document_patches / flags.positions

    def wasted(slots):
        rows = list(itertools.islice(_pack_pool(_opened(flags, documents), positions, slots), TRIAL_ROWS))
        used = sum(end - begin for row in rows for _, begin, end, _ in row)
        spent = sum(span[3] for row in rows for span in row)
        return 2 - used / (len(rows) * positions) - spent / (len(rows) * slots)

    return min(sorted({max(2, int(np.ceil(mean * trial))) for trial in TRIALS}), key=wasted)


def _write_starts(store, out, starts_of):
    """starts.npy, and the patches of whole documents: their number, and how many of each length."""
    file = _Npy(out / "starts.npy", np.uint8)
    lengths = np.zeros(LONGEST + 2, np.int64)
    for number in range(len(store)):
        flags = starts_of(number)
        if flags.shape != (store.sizes[number] + 2,):
            raise ConfigError(f"row index {out}: {flags.shape} start flags for document {number}")
        file.append(np.packbits(flags))
        own = np.diff(np.flatnonzero(flags), append=len(flags))
        lengths += np.bincount(np.minimum(own, LONGEST + 1), minlength=LONGEST + 2)
    file.close()
    # patch_lengths[k]: patches of k positions; the last entry: of more than LONGEST
    return {"document_patches": int(lengths.sum()), "patch_lengths": lengths.tolist()}


def _write_tokens(store, out, tokenizer):
    """tokens.npy and offsets.npy; returns tokens per document."""
    file, sizes = _Npy(out / "tokens.npy", np.int32), []
    for number in range(len(store)):
        tokens = tokenizer.encode(store.text(number))
        file.append(tokens)
        sizes.append(len(tokens))
    file.close()
    np.save(out / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    np.save(out / "token_bytes.npy", tokenizer.token_bytes.astype(np.int32))
    return sizes


def _write_rows(store, out, rows, positions, slots):
    """spans.npy and rows.npy; returns what the header says about them."""
    spans, offsets = _Npy(out / "spans.npy", np.int64, (3,)), _Npy(out / "rows.npy", np.int64)
    by_source = np.zeros((len(store.source_names), 2), np.int64)  # positions, patches
    offsets.append([0])
    for row in rows:
        table = np.array(row, np.int64)
        if slots and table[:, 3].sum() > slots:
            raise PatchOverflow(
                f"row {offsets.length - 1} of {out}: {table[:, 3].sum()} patches, the budget is {slots}"
            )
        spans.append(table[:, :3])
        offsets.append([spans.length])
        used = np.stack([table[:, 2] - table[:, 1], table[:, 3]], axis=1)
        np.add.at(by_source, store.source_of[table[:, 0]], used)
    spans.close()
    offsets.close()
    number = offsets.length - 1
    used, spent = by_source.sum(axis=0).tolist()
    text_by_source = np.bincount(store.source_of, weights=store.sizes, minlength=len(store.source_names))
    facts = {
        "rows": number,
        "row_patches": slots,
        "positions": used,
        "patches": spent,
        "text_bytes": store.text_bytes,
        "row_text_bytes": store.text_bytes / number,
        "spans": spans.length,
        "byte_waste": 1 - used / (number * positions),
        "sources": {
            name: {"text_bytes": int(text), "positions": int(p), "patches": int(q)}
            for name, text, (p, q) in zip(store.source_names, text_by_source, by_source, strict=True)
        },
    }
    if slots:
        facts["patch_waste"] = 1 - spent / (number * slots)
        facts["positions_per_patch"] = used / spent
        facts["text_bytes_per_patch"] = store.text_bytes / spent
    elif (out / "tokens.npy").exists():
        facts["text_bytes_per_token"] = store.text_bytes / used
    return facts
