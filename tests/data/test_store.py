"""The document store: what went in comes out, at random, and half-written is not written."""

import contextlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.data import store as module
from blt_jax.data import vocab
from blt_jax.data.sources import Document
from blt_jax.data.store import RECORD, Store, write_entropies, write_text
from blt_jax.storage import replacing
from tests.data.corpus import write_store

LARGE = np.random.default_rng(0).integers(0, 256, 3 * RECORD + 5, np.uint8).tobytes()
TEXTS = [b"a", LARGE, b"\x00\xff\xfe", b"x" * RECORD, b"y" * (RECORD - 1), "é".encode()]


def documents(texts):
    return [Document(text, f"s{i % 2}", "") for i, text in enumerate(texts)]


def new_store(folder, texts=TEXTS, **how):
    write_store(documents(texts), folder, "train", {"why": "test"}, **how)
    return Store(folder, "train")


def test_documents_come_back(tmp_path):
    store = new_store(tmp_path)
    assert [store.document(i) for i in range(len(store))] == [
        (t, f"s{i % 2}") for i, t in enumerate(TEXTS)
    ]
    assert store.sizes.tolist() == [len(t) for t in TEXTS] and store.text_bytes == sum(
        map(len, TEXTS)
    )
    assert store.source_names == ["s0", "s1"] and store.source_of.tolist() == [0, 1] * 3
    assert store.notes == {"why": "test"}


def test_ids_at_random(tmp_path):
    store, rng = new_store(tmp_path), np.random.default_rng(0)
    for i, text in enumerate(TEXTS):
        whole = vocab.encode(text)
        assert np.array_equal(store.ids(i), whole) and store.ids(i).dtype == np.int32
        edges = [
            0,
            1,
            2,
            len(whole) - 2,
            len(whole) - 1,
            len(whole),
            RECORD,
            RECORD + 1,
            RECORD + 2,
        ]
        for begin, end in [(a, b) for a in edges for b in edges] + rng.integers(
            0, len(whole) + 1, (20, 2)
        ).tolist():
            if begin <= end and begin <= len(whole):
                assert np.array_equal(store.ids(i, begin, end), whole[begin:end]), (i, begin, end)


def test_a_span_reads_only_its_pieces(tmp_path, monkeypatch):
    store, read = new_store(tmp_path), []
    monkeypatch.setattr(
        store._text, "_record", lambda n, real=store._text._record: read.append(n) or real(n)
    )
    store.ids(1, 2 * RECORD + 10, 2 * RECORD + 20)
    assert len(read) == 1


def test_threads_may_share_a_store(tmp_path):
    store = new_store(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda i: store.text(i % 6) == TEXTS[i % 6], range(200)))


def test_a_store_in_use_can_be_sent_to_another_process(tmp_path):
    store = new_store(tmp_path)
    assert store.text(1) == LARGE
    assert pickle.loads(pickle.dumps(store)).text(1) == LARGE


def test_one_large_document(tmp_path):
    text = LARGE * 26  # 5 MB
    store = new_store(tmp_path, [text])
    whole = vocab.encode(text)
    for begin in np.random.default_rng(2).integers(0, len(whole) - 4096, 50).tolist():
        assert np.array_equal(store.ids(0, begin, begin + 4096), whole[begin : begin + 4096])


def test_parts(tmp_path):
    store = new_store(tmp_path, part=2)
    assert len(list(store.folder.glob("text-*"))) == 3
    assert [store.text(i) for i in range(6)] == TEXTS
    assert (
        len(list(new_store(tmp_path, [b"only"]).folder.glob("text-*"))) == 1
    )  # no file of the old one stays


def test_fingerprint_follows_texts_order_and_sources(tmp_path):
    first = new_store(tmp_path / "a").fingerprint
    assert new_store(tmp_path / "b").fingerprint == first
    assert new_store(tmp_path / "c", TEXTS[::-1]).fingerprint != first
    write_store([Document(t, "other", "") for t in TEXTS], tmp_path / "d", "train")
    assert Store(tmp_path / "d", "train").fingerprint != first


def test_entropies(tmp_path):
    store, rng = new_store(tmp_path), np.random.default_rng(1)
    assert store.entropy_fingerprint == ""
    with pytest.raises(ConfigError, match="has no entropies"):
        store.entropies(0)
    values = [(rng.random(len(t) + 2) * 5).astype(np.float32) for t in TEXTS]
    write_entropies(tmp_path, "train", iter(values), "mark")
    store = Store(tmp_path, "train")
    assert store.entropy_fingerprint == "mark"
    for i, want in enumerate(values):
        assert store.entropies(i).dtype == np.float16
        assert np.array_equal(store.entropies(i), want.astype(np.float16))
        assert np.array_equal(store.entropies(i, 1, len(want) - 1), want.astype(np.float16)[1:-1])
    assert new_store(tmp_path, TEXTS[:2]).entropy_fingerprint == ""  # another store: they are gone


@pytest.mark.parametrize("wrong", [[3], [3, 4, 5], [3, 5]])
def test_entropies_that_do_not_fit(tmp_path, wrong):
    new_store(tmp_path, [b"a", b"bc"])
    with pytest.raises(ConfigError, match="entropies of document"):
        write_entropies(tmp_path, "train", (np.zeros(n) for n in wrong), "mark")
    assert Store(tmp_path, "train").entropy_fingerprint == ""


def test_without_manifest_there_is_no_store(tmp_path):
    write_text(documents(TEXTS), tmp_path, "train", 0, "")  # and interrupted
    with pytest.raises(ConfigError, match="no store here"):
        Store(tmp_path, "train")
    assert new_store(tmp_path).text(0) == b"a"


def test_damage_is_named(tmp_path):
    folder = new_store(tmp_path).folder
    records, sizes = folder / "text-00000.array_record", folder / "sizes.npy"
    whole = records.read_bytes()
    records.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ConfigError, match="text-00000.array_record: damaged .*prepare it again"
    ) as error:
        Store(tmp_path, "train").text(5)
    assert "\n" not in str(error.value)
    kept = sizes.read_bytes()
    sizes.write_bytes(kept[:-1])
    with pytest.raises(ConfigError, match="sizes.npy: missing or damaged; delete"):
        Store(tmp_path, "train")
    sizes.write_bytes(kept)
    records.unlink()
    with pytest.raises(
        ConfigError, match="text-00000.array_record: missing, though the manifest names it"
    ):
        Store(tmp_path, "train")
    manifest = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(ConfigError, match="store format 99"):
        Store(tmp_path, "train")


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full to stand for a full disk"
)
def test_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    full = contextlib.nullcontext("/dev/full")
    monkeypatch.setattr(
        module,
        "replacing",
        lambda path: full if path.suffix == ".array_record" else replacing(path),
    )
    with pytest.raises(ConfigError, match="train: the disk is full; free some space"):
        new_store(tmp_path)
    with pytest.raises(ConfigError, match="no store here"):
        Store(tmp_path, "train")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="train: a part of the path is no folder"):
        new_store(tmp_path / "file")
