"""Batches: every byte a target exactly once, layouts against a slow reference, order and resume."""

import numpy as np
import pytest

from blt_jax.config import BOS, EOS, ConfigError
from blt_jax.data import bpe, pack, pipeline, vocab
from tests.data.corpus import made, space_starts

LENGTH = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return made(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def tokenizer(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    bpe.train((store.text(i) for i in range(len(store))), 320, path)
    return bpe.Bpe(path)


@pytest.fixture(scope="module", params=["bytes", "patches", "tokens"])
def index(request, store, tokenizer, tmp_path_factory):
    how = {"patches": {"starts_of": space_starts(store)}, "tokens": {"tokenizer": tokenizer}}.get(
        request.param, {}
    )
    out = tmp_path_factory.mktemp("rows") / request.param
    pack.build_index(store, out, positions=LENGTH, **how)
    return out


def alike(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


# ---------------------------------------------------------------- content


def test_every_id_but_bos_is_a_target_once(index, store, tokenizer):
    """All documents, rebuilt from the targets of one epoch alone."""
    tokens = index.name == "tokens"
    encode = tokenizer.encode if tokens else vocab.encode
    found = [np.full(len(encode(store.text(i))), -1) for i in range(len(store))]
    offsets, spans = pipeline.span_table(index)
    text_bytes = 0
    for numbers, batch in pipeline.validation_batches(index, store, 4):
        text_bytes += int(batch["bytes_BxL"].sum())
        assert not batch["bytes_BxL"][batch["loss_mask_BxL"] == 0].any()
        for b, number in enumerate(numbers):
            for segment, (document, begin, end) in enumerate(
                spans[offsets[number] : offsets[number + 1]], start=1
            ):
                inside = batch["segment_BxL"][b] == segment
                assert inside.sum() == end - begin
                counts = batch["loss_mask_BxL"][b][inside] > 0
                places = np.arange(begin, end)[counts] + 1
                assert np.all(found[document][places] == -1)
                found[document][places] = batch["targets_BxL"][b][inside][counts]
                whole = encode(store.text(document))
                assert np.array_equal(batch["ids_BxL"][b][inside], whole[begin:end])
    for i, ids in enumerate(found):
        assert ids[0] == -1 and np.array_equal(ids[1:], encode(store.text(i))[1:])
        assert (tokenizer if tokens else vocab).decode(ids[1:]) == store.text(i)
    assert text_bytes == store.text_bytes


def test_contract_of_a_batch(index, store):
    batch = pipeline.train_batches(index, store, 3, seed=0)[0]
    header = pack.load_header(index)
    keys = {"ids_BxL", "targets_BxL", "segment_BxL", "bytes_BxL", "loss_mask_BxL"}
    if index.name == "patches":
        keys |= {"patch_BxL", "read_BxL", "patch_segment_BxP"}
        assert batch["patch_segment_BxP"].shape == (3, header["row_patches"])
    assert batch.keys() == keys
    for key, value in batch.items():
        assert value.dtype == (np.float32 if key == "loss_mask_BxL" else np.int32), key
        assert key.endswith("P") or value.shape == (3, LENGTH)
    if index.name != "tokens":
        assert not batch["loss_mask_BxL"][batch["ids_BxL"] == EOS].any()
        real = batch["segment_BxL"] > 0
        fresh = np.diff(batch["segment_BxL"], axis=1, prepend=0) != 0
        assert np.all(fresh[batch["ids_BxL"] == BOS]) and np.all(batch["ids_BxL"][~real] == 0)


def test_patches_against_a_slow_reference(store, tmp_path):
    flags = space_starts(store)
    pack.build_index(store, tmp_path / "rows", positions=LENGTH, starts_of=flags)
    source = pipeline.RowSource(tmp_path / "rows", store)
    offsets, spans = pipeline.span_table(tmp_path / "rows")
    slots = source.header["row_patches"]
    for number in range(len(source)):
        owner, owner_segment, read = [], [], []
        for segment, (document, begin, end) in enumerate(
            spans[offsets[number] : offsets[number + 1]], start=1
        ):
            own = flags(document)
            for position in range(begin, end):
                if position < begin + 2 or own[position]:
                    owner_segment.append(segment)
                owner.append(len(owner_segment) - 1)
                closes = position + 1 == end or position + 1 < begin + 2 or own[position + 1]
                read.append(owner[-1] if closes else owner[-1] - 1)
        row = source[number]
        padding = LENGTH - len(owner)
        assert row["patch_L"].tolist() == owner + [slots] * padding
        assert row["read_L"][: len(read)].tolist() == read
        assert row["patch_segment_P"].tolist() == owner_segment + [0] * (slots - len(owner_segment))
        assert all(
            row["patch_segment_P"][r] == s
            for r, s in zip(row["read_L"], row["segment_L"], strict=True)
            if s
        )


# ---------------------------------------------------------------- order


def test_resume_equals_uninterrupted(index, store):
    straight = pipeline.iterate_from(pipeline.train_batches(index, store, 4, seed=7))
    batches = [next(straight) for _ in range(12)]
    for step in (0, 5):
        resumed = pipeline.iterate_from(pipeline.train_batches(index, store, 4, seed=7), step)
        for want in batches[step:]:
            assert alike(next(resumed), want)
    assert alike(pipeline.train_batches(index, store, 4, seed=7)[9], batches[9])


def rows_seen(index, store, rows, seed, steps):
    """The row numbers that the first steps hold, by their content."""
    source = pipeline.RowSource(index, store)
    name = {
        (r["ids_L"].tobytes(), r["targets_L"].tobytes()): i
        for i, r in enumerate(source[n] for n in range(len(source)))
    }
    batches = pipeline.train_batches(index, store, rows, seed)
    pairs = [
        p
        for s in range(steps)
        for p in zip(batches[s]["ids_BxL"], batches[s]["targets_BxL"], strict=True)
    ]
    return [name[ids.tobytes(), targets.tobytes()] for ids, targets in pairs]


def test_epochs_are_shuffled_anew_and_complete(index, store):
    count = pack.load_header(index)["rows"]
    seen = rows_seen(index, store, 4, seed=7, steps=count)  # four epochs
    epochs = [seen[i * count : (i + 1) * count] for i in range(4)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert rows_seen(index, store, 4, seed=8, steps=3) != seen[:12]


def test_processes_share_the_same_batches(index, store):
    whole = pipeline.train_batches(index, store, 4, seed=1)[3]
    for count in (2, 4):
        parts = [pipeline.train_batches(index, store, 4, 1, p, count)[3] for p in range(count)]
        assert alike({key: np.concatenate([part[key] for part in parts]) for key in whole}, whole)
    with pytest.raises(ConfigError, match="train.rows = 4: must be a multiple of the 3 processes"):
        pipeline.train_batches(index, store, 4, 1, 0, 3)


def test_validation_is_all_rows_in_order_and_padded(index, store):
    count, source = pack.load_header(index)["rows"], pipeline.RowSource(index, store)
    rows = next(r for r in (4, 5, 6) if count % r)
    numbers, batches = zip(*pipeline.validation_batches(index, store, rows), strict=True)
    assert sum(numbers, []) == list(range(count))
    assert all(len(batch["ids_BxL"]) == rows for batch in batches)
    last, real = batches[-1], len(numbers[-1])
    assert not last["loss_mask_BxL"][real:].any() and not last["segment_BxL"][real:].any()
    assert np.array_equal(last["ids_BxL"][real - 1], source[count - 1]["ids_L"])
    if index.name == "patches":
        assert (
            np.all(last["patch_BxL"][real:] == source.header["row_patches"])
            and last["read_BxL"].min() >= 0
        )
    halves = [list(pipeline.validation_batches(index, store, 2 * rows, p, 2)) for p in (0, 1)]
    assert sorted(n for half in halves for own, _ in half for n in own) == list(range(count))


def test_an_index_of_another_store_is_refused(index, tmp_path):
    with pytest.raises(ConfigError, match="made from another store"):
        pipeline.RowSource(index, made(tmp_path, seed=5))


def test_a_source_has_a_stable_name(index, store):
    assert (
        repr(pipeline.RowSource(index, store))
        == f"RowSource({index.parent.name}/{index.name}, {store.fingerprint})"
    )


def test_batches_of_one_row_have_a_length():
    import grain

    assert len(grain.MapDataset.range(7).repeat(pipeline.EPOCHS).batch(1)) == 7 * pipeline.EPOCHS
