"""Documents into hash order, once each, in two splits: the same store from any files, pieces and
accidents.
"""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from blt_jax import storage
from blt_jax.config import ConfigError, Data
from blt_jax.data import parts, shuffle, store
from blt_jax.data.parts import Piece
from blt_jax.data.store import Store
from tests.data.test_sources import lines, write


def made(folder, data, pieces=1, seed=0):
    """(train, validation, lines on skips) of a store made in pieces, each stage in a random
    order.
    """
    for stage in (shuffle.read, shuffle.sort):
        for piece in random.Random(seed).sample(range(pieces), pieces):
            stage(data, folder, Piece(piece, pieces))
    skips = shuffle.merge(data, folder)
    return Store(folder, "train"), Store(folder, "validation"), skips


def texts(store):
    return [store.text(i) for i in range(len(store))]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a few hundred short documents make many blocks, runs and parts."""
    for name, size in (("BLOCK", 2000), ("MEMORY", 8000), ("PART", 700)):
        monkeypatch.setattr(shuffle, name, size)


def corpus(folder, count=300, files=12, repeats=7):
    """Data of `files` files, with repeats across them."""
    folder.mkdir()
    rows = lines(count) + lines(repeats, first=count // 2)
    for i in range(files):
        write(folder / f"{i:02d}.jsonl", rows[i::files])
    return Data(input=str(folder / "*.jsonl"), validation_fraction=0.1)


# ---------------------------------------------------------------- what is chosen


def test_split_does_not_depend_on_files(tmp_path):
    one = Data(input=write(tmp_path / "all.jsonl", lines(300)), validation_fraction=0.1)
    many = corpus(tmp_path / "parts", repeats=0)
    train, validation, _ = made(tmp_path / "one", one)
    train_2, validation_2, _ = made(tmp_path / "many", many)
    assert texts(train) == texts(train_2) and texts(validation) == texts(validation_2)
    assert train.fingerprint == train_2.fingerprint
    assert 15 <= len(validation) <= 50 and len(train) + len(validation) == 300
    assert not set(texts(train)) & set(texts(validation))


def test_documents_are_in_the_order_of_their_hash(tmp_path, small):
    data = corpus(tmp_path / "in")
    digests = [
        shuffle.Document(t, "", "").digest
        for store in made(tmp_path / "out", data)[1::-1]
        for t in texts(store)
    ]
    assert digests == sorted(digests) and len(digests) == 300


def test_repeats_are_dropped_and_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", [*lines(50), *lines(3, first=10)])
    train, validation, skips = made(tmp_path / "out", Data(input=path))
    assert len(train) + len(validation) == 50
    assert len(skips) == 1 and skips[0].startswith("3 x exact repeat: ") and f"{path}:5" in skips[0]


@pytest.mark.parametrize("first, second", [("a", "b"), ("b", "a")])
def test_which_repeat_is_kept_does_not_depend_on_files(tmp_path, small, first, second):
    for name, source in (("1", first), ("2", second)):
        same = [json.dumps({"text": f"text {i}", "source": source}) for i in range(40)]
        write(tmp_path / f"{name}.jsonl", same)
    train, validation, _ = made(tmp_path / "out", Data(input=str(tmp_path / "*.jsonl")))
    assert train.source_names == validation.source_names == ["a"]


def test_validation_input_wins_over_training(tmp_path):
    data = Data(
        input=write(tmp_path / "train.jsonl", lines(50)),
        validation_input=write(tmp_path / "validation.jsonl", lines(10, first=45)),
    )
    train, validation, skips = made(tmp_path / "out", data)
    assert len(train) == 45 and len(validation) == 10 and skips[0].startswith("5 x exact repeat: ")
    assert not set(texts(train)) & set(texts(validation))


@pytest.mark.parametrize("pieces", [1, 5])
def test_max_bytes_takes_whole_documents_in_hash_order(tmp_path, small, pieces):
    rows = [json.dumps({"text": "x" * (1 + 37 * i % 101) + str(i)}) for i in range(200)]
    path = write(tmp_path / "a.jsonl", rows)
    everything = texts(made(tmp_path / "all", Data(input=path))[0])
    train, validation, _ = made(
        tmp_path / "some", Data(input=path, max_bytes=4000, validation_max_bytes=90), pieces
    )
    room, want = 4000, []
    for text in everything:
        if len(text) <= room:
            room -= len(text)
            want.append(text)
    assert texts(train) == want and 3950 < train.text_bytes <= 4000 and validation.text_bytes <= 90


def test_small_corpora_still_get_both_splits(tmp_path, small):
    path = write(tmp_path / "a.jsonl", lines(3))
    for fraction, sizes in ((1e-9, (2, 1)), (1 - 1e-9, (1, 2))):
        train, validation, _ = made(
            tmp_path / str(fraction), Data(input=path, validation_fraction=fraction), 2
        )
        assert (len(train), len(validation)) == sizes


def test_odd_names_and_texts_survive(tmp_path, small):
    path = write(tmp_path / "a.jsonl", [*lines(9), r'{"text": "\ud800", "source": "\udcff"}'])
    stores = made(tmp_path / "out", Data(input=path))[:2]
    assert (b"\xed\xa0\x80", "\udcff") in [
        store.document(i) for store in stores for i in range(len(store))
    ]


# ---------------------------------------------------------------- pieces


def test_any_number_of_pieces_makes_the_same_files(tmp_path, small):
    data = corpus(tmp_path / "in")
    made(tmp_path / "1", data)
    want = contents(tmp_path / "1")
    assert sum(name.startswith("train/text-") for name in want) >= 8  # there is something to share
    for pieces in (2, 7):
        made(tmp_path / str(pieces), data, pieces, seed=pieces)
        assert contents(tmp_path / str(pieces)) == want, pieces


def test_killed_anywhere_and_started_again(tmp_path, small, monkeypatch):
    """Each attempt dies around a random write, and one part is repeated at most."""
    data, saved, rng = corpus(tmp_path / "in"), [], np.random.default_rng(0)
    made(tmp_path / "want", data)
    real_save, real_replacing = parts.Records.save, shuffle.replacing

    class Killed(BaseException):
        pass

    def fate():
        if rng.random() < 0.05:
            raise Killed

    def save(self, name, *args, **more):
        real_save(self, name, *args, **more)
        saved.append((str(self.folder), name))
        fate()

    def replacing(path):
        fate()
        return real_replacing(path)

    monkeypatch.setattr(parts.Records, "save", save)
    for module in (shuffle, storage, store):
        monkeypatch.setattr(module, "replacing", replacing)
    deaths = 0
    while True:
        try:
            made(tmp_path / "out", data, 3, seed=deaths)
            break
        except Killed:
            deaths += 1
    assert deaths > 5 and contents(tmp_path / "out") == contents(tmp_path / "want")
    again = len(saved) - len(set(saved))
    assert again <= deaths and len(set(saved)) > 20, (
        "more than the part that each kill broke off was made again"
    )


def test_two_processes_may_make_the_same_piece(tmp_path, small):
    data = corpus(tmp_path / "in")
    made(tmp_path / "want", data)
    for stage in (shuffle.read, shuffle.sort):
        with ThreadPoolExecutor(4) as pool:
            for done in [
                pool.submit(stage, data, tmp_path / "out", Piece(i % 2, 2)) for i in range(4)
            ]:
                done.result()
    shuffle.merge(data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "want")


def test_what_a_killed_merge_was_writing_goes(tmp_path):
    data, out = corpus(tmp_path / "in", 40, 2), tmp_path / "out"
    made(out, data)
    before = contents(out)
    (out / "prepared.json.0123456789ab.tmp").touch()
    shuffle.merge(data, out)
    assert contents(out) == before


def test_missing_pieces_are_named(tmp_path, small):
    data, out = corpus(tmp_path / "in"), tmp_path / "out"
    for piece in (0, 1, 3):
        shuffle.read(data, out, Piece(piece, 4))
    with pytest.raises(
        ConfigError, match=r"out: \d of \d+ parts of stage 'read' are missing: .* piece 2 of 4$"
    ):
        shuffle.sort(data, out, Piece(0, 4))
    shuffle.read(data, out, Piece(2, 4))
    for piece in (0, 3):
        shuffle.sort(data, out, Piece(piece, 4))
    with pytest.raises(
        ConfigError, match=r"of stage 'sort' are missing: run that stage for piece 1, 2 of 4$"
    ):
        shuffle.merge(data, out, Piece(0, 4))
    with pytest.raises(ConfigError, match="no store here"):
        Store(out, "train")


@pytest.mark.parametrize("number, of", [(4, 4), (-1, 4), (0, 0)])
def test_pieces_that_are_not(number, of):
    with pytest.raises(ConfigError, match="piece.* = .*: must be"):
        Piece(number, of)


# ---------------------------------------------------------------- mistakes


def test_a_broken_file_in_the_middle_costs_its_block_only(tmp_path, small, monkeypatch):
    data, read = corpus(tmp_path / "in", files=30), []
    middle = tmp_path / "in" / "15.jsonl"
    good = middle.read_text()
    middle.write_bytes(b'{"text": "a"}\n')
    middle.rename(tmp_path / "in" / "15.jsonl.gz")
    data = Data(input=str(tmp_path / "in" / "*"), validation_fraction=0.1)
    with pytest.raises(ConfigError, match=r"cannot read .*15.jsonl.gz: "):
        shuffle.read(data, tmp_path / "out")
    (tmp_path / "in" / "15.jsonl.gz").unlink()
    middle.write_text(good)
    documents = shuffle.sources.documents
    monkeypatch.setattr(
        shuffle.sources, "documents", lambda file, *a: read.append(file.path) or documents(file, *a)
    )
    train, validation, _ = made(tmp_path / "out", data)
    assert len(train) + len(validation) == 300
    assert "/15.jsonl" in str(read) and "/00.jsonl" not in str(read), (
        "what was read is not read again"
    )


def test_more_than_one_percent_stops(tmp_path):
    path = write(tmp_path / "a.jsonl", [*lines(150), "{broken", "{worse"])
    with pytest.raises(
        ConfigError, match=r"2 of 152 documents cannot be used \(1.3%.*a.jsonl:151, .*a.jsonl:152"
    ):
        made(tmp_path / "out", Data(input=path))


def test_a_broken_validation_input_does_not_hide_behind_training(tmp_path):
    train = write(tmp_path / "train.jsonl", lines(1000))
    broken = write(tmp_path / "validation.jsonl", [*lines(8, first=2000), "{broken"])
    with pytest.raises(ConfigError, match=r"1 of 9 documents cannot be used .*validation.jsonl:9"):
        made(tmp_path / "broken", Data(input=train, validation_input=broken))
    both = Data(
        input=train,
        validation_input=write(tmp_path / "good.jsonl", [*lines(8, first=2000), '{"text": ""}']),
    )
    assert made(tmp_path / "good", both)[2] == [f"1 x empty text: {tmp_path / 'good.jsonl'}:9"]


@pytest.mark.parametrize("count", [0, 1])
def test_a_corpus_without_documents(tmp_path, count):
    path = write(tmp_path / "a.jsonl", lines(count))
    with pytest.raises(
        ConfigError, match=f"no documents for train among {count} read; check data.input"
    ):
        made(tmp_path / "out", Data(input=path))
    with pytest.raises(ConfigError, match="no store here"):
        Store(tmp_path / "out", "train")


def test_a_folder_that_holds_another_corpus(tmp_path):
    one, other = (Data(input=write(tmp_path / f"{n}.jsonl", lines(40, first=n))) for n in (1, 2))
    shuffle.read(one, tmp_path / "out")
    with pytest.raises(
        ConfigError,
        match=r"out holds another corpus \(input: .*1.jsonl -> .*2.jsonl\); choose another",
    ):
        shuffle.read(other, tmp_path / "out")
    before = texts(made(tmp_path / "out", one)[0])
    for stage in (shuffle.read, shuffle.sort, shuffle.merge):
        with pytest.raises(ConfigError, match="holds another corpus"):
            stage(other, tmp_path / "out")
    assert texts(Store(tmp_path / "out", "train")) == before
    assert texts(made(tmp_path / "out", one)[0]) == before  # the same again is no mistake


@pytest.mark.parametrize("accident", ["cut", "gone"])
def test_damaged_runs_are_named(tmp_path, small, accident):
    data = corpus(tmp_path / "in")
    shuffle.read(data, tmp_path / "out")
    run = next(path for path in (tmp_path / "out" / "reading").iterdir() if not path.suffix)
    run.write_bytes(run.read_bytes()[:-1]) if accident == "cut" else run.unlink()
    with pytest.raises(
        ConfigError, match=f"{run.name}: missing or damaged; delete .*reading and begin again"
    ):
        shuffle.sort(data, tmp_path / "out")
