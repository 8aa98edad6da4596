"""Packing: nothing dropped, no budget exceeded, little wasted."""

from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import ConfigError, Data
from blt_jax.data import pack, shuffle
from blt_jax.data.pipeline import RowSource, span_table
from blt_jax.data.store import Store
from blt_jax.patching import Patching
from blt_jax.patching.row_layout import starts_to_lengths
from blt_jax.patching.row_starts import starts
from tests.data.corpus import made, space_starts

TEXT = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"


def rows_of(index):
    offsets, spans = span_table(index)
    return [spans[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def slow_cost(flags, begin, end):
    return sum(bool(flags[p]) or p < begin + 2 for p in range(begin, end))


def check(store, index, starts_of=None):
    """Spans partition every document in order, budgets hold, and the header tells the truth."""
    header, reached, patches, positions = pack.load_header(index), np.zeros(len(store), int), 0, 0
    for row in rows_of(index):
        used = sum(end - begin for _, begin, end in row)
        assert 0 < used <= header["row_positions"]
        positions += used
        for document, begin, end in row:
            assert begin == reached[document] < end
            reached[document] = end
        if starts_of:
            spent = sum(slow_cost(starts_of(document), begin, end) for document, begin, end in row)
            assert spent <= header["row_patches"]
            patches += spent
    assert np.array_equal(reached, store.sizes + 2)
    assert (header["positions"], header["patches"]) == (positions, patches)
    assert header["byte_waste"] == pytest.approx(
        1 - positions / header["rows"] / header["row_positions"]
    )
    return header


@pytest.mark.parametrize("positions", [8, 64, 5000])
def test_bytes_are_one_stream(tmp_path, positions):
    store = made(tmp_path)
    pack.build_index(store, tmp_path / "rows", positions=positions)
    header = check(store, tmp_path / "rows")
    full = [
        sum(end - begin for _, begin, end in row) == positions for row in rows_of(tmp_path / "rows")
    ]
    assert all(full[:-1]) and header["row_patches"] == 0
    assert header["row_text_bytes"] == store.text_bytes / header["rows"]


@pytest.mark.parametrize(
    "positions, patches", [(64, 0), (64, 3), (64, 20), (64, 64), (16, 2), (500, 0), (5000, 0)]
)
def test_patched_rows(tmp_path, positions, patches):
    store = made(tmp_path)
    flags = space_starts(store)
    pack.build_index(
        store, tmp_path / "rows", positions=positions, patches=patches, starts_of=flags
    )
    header = check(store, tmp_path / "rows", flags)
    assert header["row_patches"] == patches or not patches
    assert header["patch_waste"] == pytest.approx(
        1 - header["patches"] / header["rows"] / header["row_patches"]
    )


def test_header_tables(tmp_path):
    store = made(tmp_path, extra=[b"w" * 65, b"w" * 500])
    flags = space_starts(store)
    header = pack.build_index(store, tmp_path / "rows", positions=200, starts_of=flags)
    lengths = np.concatenate([starts_to_lengths(flags(i)) for i in range(len(store))])
    assert header["patch_lengths"][:65] == np.bincount(lengths, minlength=65)[:65].tolist()
    assert header["patch_lengths"][65] == (lengths > 64).sum() > 0 and header[
        "document_patches"
    ] == len(lengths)
    for key in ("text_bytes", "positions", "patches"):
        assert sum(row[key] for row in header["sources"].values()) == header[key]
    odd = [i for i in range(len(store)) if store.source_names[store.source_of[i]] == "odd"]
    assert header["sources"]["odd"]["positions"] == (store.sizes[odd] + 2).sum()
    assert header["text_bytes_per_patch"] == store.text_bytes / header["patches"]


def test_noise_is_that_of_the_rows_that_are_read(tmp_path):
    store = made(tmp_path)
    header = pack.build_index(
        store, tmp_path / "rows", positions=200, starts_of=space_starts(store)
    )
    rows = RowSource(tmp_path / "rows", store)
    text = np.array([rows[r]["bytes_L"].sum() for r in range(len(rows))])
    patches = np.array([(rows[r]["patch_segment_P"] > 0).sum() for r in range(len(rows))])
    assert (text.sum(), patches.sum()) == (header["text_bytes"], header["patches"])
    mean = text.sum() / patches.sum()
    assert header["patch_noise"] == pytest.approx(
        ((text - mean * patches) ** 2).sum() / patches.sum()
    )


def test_start_flags_are_kept(tmp_path):
    store, rng = made(tmp_path), np.random.default_rng(0)
    flags = space_starts(store)
    pack.build_index(store, tmp_path / "rows", positions=64, starts_of=flags)
    kept = pack.StartFlags(store, tmp_path / "rows")
    for i in range(len(store)):
        a, b = sorted(rng.integers(0, store.sizes[i] + 3, 2).tolist())
        assert np.array_equal(kept.read(i), flags(i)) and np.array_equal(
            kept.read(i, a, b), flags(i)[a:b]
        )


def test_rebuilt_only_if_something_differs(tmp_path):
    store, out, calls = made(tmp_path), tmp_path / "rows", []

    def flags(i):
        calls.append(i)
        return space_starts(store)(i)

    def build(**how):
        calls.clear()
        header = pack.build_index(
            store, out, **({"positions": 64, "starts_of": flags, "fingerprint": "a"} | how)
        )
        return header, bool(calls)

    first, made_it = build()
    assert made_it and build() == (first, False)
    assert (
        build(fingerprint="b")[1] and build(positions=65)[1] and build(patches=20)[1] and build()[1]
    )
    (out / "header.json").unlink()
    assert build()[1]
    store = made(tmp_path, seed=1)
    assert build()[1]


def test_an_index_that_is_not_there_or_too_small(tmp_path):
    with pytest.raises(ConfigError, match="no row index here"):
        pack.load_header(tmp_path)
    store = made(tmp_path)
    with pytest.raises(ConfigError, match="too small"):
        pack.build_index(
            store, tmp_path / "rows", positions=64, patches=1, starts_of=space_starts(store)
        )


def test_several_megabytes_in_one_document(tmp_path):
    store = made(tmp_path, extra=[b"word " * 600_000])
    header = pack.build_index(
        store, tmp_path / "rows", positions=4096, starts_of=space_starts(store)
    )
    assert (
        header["byte_waste"] + header["patch_waste"] < 0.02
        and header["positions"] == (store.sizes + 2).sum()
    )


# ---------------------------------------------------------------- waste on real text

WASTE = 0.02  # of each budget, at 8,192 positions


@pytest.fixture(scope="module")
def real_text(tmp_path_factory):
    if not TEXT.exists():
        pytest.skip("shared/data/text is not beside the checkout")
    folder = tmp_path_factory.mktemp("real")
    for stage in (shuffle.read, shuffle.sort, shuffle.merge):
        stage(Data(input=str(TEXT / "*.train.jsonl.gz"), max_bytes=10_000_000), folder)
    return Store(folder, "train")


def bigram_starts(store, mean):
    """Entropy-like starts: the entropy of a bigram table's next byte, cut at the threshold for a
    mean patch size.
    """
    pairs = np.full((260, 260), 0.01)
    for i in range(0, len(store), 4):
        ids = store.ids(i)
        pairs += np.bincount(ids[:-1] * 260 + ids[1:], minlength=260 * 260).reshape(260, 260)
    chance = pairs / pairs.sum(axis=1, keepdims=True)
    entropy, surprise = -(chance * np.log(chance)).sum(axis=1), -np.log(chance)

    def entropies(i):
        ids = store.ids(i)
        seen = np.concatenate(
            [[0], surprise[ids[:-1], ids[1:]]]
        )  # so that equal bytes do not all agree
        return (entropy[ids] + 0.3 * seen).astype(np.float16)

    values = np.concatenate([entropies(i)[1:-1] for i in range(0, len(store), 5)])
    patching = Patching(threshold=float(np.quantile(values.astype(np.float32), 1 - 1 / mean)))
    return lambda i: starts(store.ids(i), entropies(i), patching)


@pytest.mark.parametrize("rule", ["space", "entropy 4.5", "entropy 6"])
def test_waste_on_real_text(real_text, tmp_path, rule):
    if rule == "space":
        flags = space_starts(real_text)
    else:
        flags = bigram_starts(real_text, float(rule.split()[1]))
    header = pack.build_index(real_text, tmp_path / "rows", positions=8192, starts_of=flags)
    assert header["byte_waste"] <= WASTE and header["patch_waste"] <= WASTE, header
    assert header["spans"] / header["rows"] < 4  # few cuts
