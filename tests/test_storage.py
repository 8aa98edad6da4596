"""Files on a disk and in a bucket: the same words for both, and the same promises."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import blt_jax
from blt_jax import storage
from blt_jax.config import ConfigError
from tests.bucket import bucket


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    with bucket(tmp_path_factory.mktemp("cache")) as name:
        yield name


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """A folder that nobody has used."""
    if request.param == "disk":
        return storage.at(tmp_path / "a")
    return storage.at(f"{request.getfixturevalue('remote')}/{tmp_path.name}")


def test_paths(remote):
    assert (
        str(storage.at(f"{remote}/study/runs/x") / "../../store")
        == "gs://bucket/study/runs/x/../../store"
    )
    assert (
        str(storage.at(storage.at(f"{remote}/study/runs/x") / "../../store"))
        == "gs://bucket/study/store"
    )
    assert str(storage.absolute(f"{remote}/a")) == "gs://bucket/a"
    assert storage.absolute("a").is_absolute()


def test_a_file_is_whole_or_not_at_all(folder):
    storage.make_folder(folder / "b")
    path = folder / "b" / "x.json"
    storage.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), storage.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n "a": 1\n}'
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    data = (
        np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8).tobytes() + b"\r\n--==0==\r\n"
    )
    storage.write_bytes(path, data)
    assert path.read_bytes() == data and storage.size(path) == len(data)
    assert storage.tail(path, 5) == data[-5:] and storage.tail(folder / "none", 5) == b""
    assert abs(storage.modified(path) - time.time()) < 60


def test_one_of_many_creates(folder):
    storage.make_folder(folder)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: storage.create(folder / "lease", str(n)), range(8)))
    assert made.count(True) == 1
    assert (folder / "lease").read_text() == str(made.index(True))
    (folder / "lease").unlink(missing_ok=True)
    assert storage.create(folder / "lease", "again")


def test_a_copy_follows_what_it_is_of(folder):
    storage.make_folder(folder)
    path = folder / "x.npy"
    for values in (np.arange(5), np.arange(7)):
        with storage.replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, values)
        here = storage.local(path)
        assert storage.local(path) == here
        assert np.load(here, mmap_mode="r").tolist() == values.tolist()
    if storage.in_bucket(folder):
        assert len(list(here.parents[1].iterdir())) == 1, "old copies are kept"
    with pytest.raises(FileNotFoundError):
        np.load(storage.local(folder / "none.npy"))


def test_what_grows_is_followed(folder, monkeypatch):
    monkeypatch.setattr(storage, "EVERY", 0.05)
    storage.make_folder(folder)
    for part in ("one\n", "two\n"):
        with storage.Growing(folder, ["log.txt"]) as growing:
            with open(growing.here / "log.txt", "a") as log:
                log.write(part)
            (growing.here / "board").mkdir(exist_ok=True)
            (growing.here / "board" / part.strip()).write_text(part)
            until = time.monotonic() + 10
            while not (folder / "board" / part.strip()).exists() and time.monotonic() < until:
                time.sleep(0.05)
            assert (folder / "board" / part.strip()).read_text() == part, "not followed while open"
    assert (folder / "log.txt").read_text() == "one\ntwo\n"
    if storage.in_bucket(folder):
        assert not growing.here.exists() and threading.active_count() < 50


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")  # of fork
def test_a_forked_process_reads_too(remote, tmp_path):
    """As the processes of a run that share its training are."""
    path = storage.at(f"{remote}/{tmp_path.name}/x")
    storage.write_bytes(path, b"1")
    child = os.fork()
    if not child:
        os._exit(0 if path.exists() and storage.local(path).read_bytes() == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_killed_processes_left_is_removed_after_a_month(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "CACHE", tmp_path)
    drafts = tmp_path / "drafts"
    for name, file in (
        ("run", "log.txt"),
        ("lively", "log.txt"),
        ("x.json.tmp", None),
        ("new.tmp", None),
    ):
        path = drafts / name / file if file else drafts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        if name in ("run", "x.json.tmp"):
            os.utime(path, (0, 0))
        if file:
            os.utime(path.parent, (0, 0))
    storage.write_bytes(f"{remote}/{tmp_path.name}/x", b"1")
    assert sorted(path.name for path in drafts.iterdir()) == ["lively", "new.tmp"]


def test_a_hugging_face_model_in_a_bucket_is_refused(remote, tmp_path):
    storage.write_json(f"{remote}/{tmp_path.name}/config.json", {"model_type": "blt"})
    with pytest.raises(
        ConfigError, match=f"{tmp_path.name}: a Hugging Face model in a bucket; copy it to a folder"
    ):
        blt_jax.load(f"{remote}/{tmp_path.name}")


def test_remove_folder(folder):
    storage.make_folder(folder / "b")
    storage.write_bytes(folder / "b" / "x", b"1")
    storage.write_bytes(folder / "c", b"1")
    storage.remove_folder(folder / "b")
    storage.remove_folder(folder / "none")
    assert not (folder / "b").exists() and (folder / "c").exists()


def test_clear_words(remote, monkeypatch):
    storage.check(f"{remote}/anything")
    with pytest.raises(ConfigError, match="no bucket 'nowhere'"):
        storage.check("gs://nowhere/a")
    import builtins

    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *a: (_ for _ in ()).throw(ImportError) if name == "gcsfs" else real(name, *a),
    )
    storage._bucket.cache_clear()
    with pytest.raises(ConfigError, match="pip install 'blt-jax\\[gcs\\]'"):
        storage.at(f"{remote}/a")
