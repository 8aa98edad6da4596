"""Files of studies, runs and stores: on a disk, on a file system that machines share, or in a
bucket (`gs://`).

On a disk `at` gives pathlib's paths, for a bucket etils' `epath.Path`, with the same methods. But
an object of a bucket is written whole or not at all, nothing can be appended to it, renamed, locked
or mapped into memory. What needs one of these goes through a function here, which does on disks
what disks do best.

The extra `gcs` (gcsfs) is what buckets need. No jax here: launchers and status tables read files
too.
"""

import contextlib
import functools
import json
import logging
import os
import posixpath
import shutil
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blt_jax import storage_errors
from blt_jax.config import ConfigError

PathLike = str | os.PathLike  # a name, or what `at` gives
AnyPath = Any  # pathlib.Path, or etils' epath.Path, which has the same methods

BUCKET = "gs://"
EVERY = 15.0  # seconds after which what was appended to a `Growing` file is in the bucket
# Copies of what is read from buckets, and drafts of what is written to them.
CACHE = Path(os.environ.get("BLT_JAX_CACHE") or Path.home() / ".cache" / "blt_jax")
_LEFT = 30 * 24 * 3600.0  # seconds after which a draft is nobody's


def at(path: PathLike) -> AnyPath:
    """`path` as a path of pathlib, or of etils' epath if it is in a bucket, then without `..`.

    Raises ConfigError where buckets need a package that is not installed.
    """
    if not in_bucket(path):
        return Path(path)
    _bucket()
    from etils import epath

    return epath.Path(BUCKET + posixpath.normpath(str(path).removeprefix(BUCKET)))


def absolute(path: PathLike) -> AnyPath:
    """`path` as every process of this machine, or any machine for a bucket, can name it."""
    return at(path) if in_bucket(path) else Path(path).absolute()


def in_bucket(path: PathLike) -> bool:
    """Whether a path names an object of a bucket."""
    return str(path).startswith(BUCKET)


@functools.cache
def _bucket():
    """The file system of all buckets."""
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        raise ConfigError("gs:// needs the package gcsfs: pip install 'blt-jax[gcs]'") from None
    import fsspec

    for chatty in ("fsspec", "gcsfs"):  # of each file; and of each error, which they raise too
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    # Other machines write there too: what was listed a while ago is not what is there.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return fsspec.filesystem("gcs")


def forget() -> None:
    """Lets go of the connections to buckets: a process that was forked must make its own."""
    if "gcsfs" in sys.modules:
        from etils.epath import backend

        _bucket.cache_clear()
        # fsspec's own cache knows of forks, this one not
        backend._FileSystemSpecBackend._get_filesystem.cache_clear()


os.register_at_fork(after_in_child=forget)


def check(path: PathLike) -> None:
    """Raises ConfigError if `path` is in a bucket that is not there or not ours to read."""
    if in_bucket(path):
        bucket, _ = _bucket_and_name(path)
        try:
            _bucket().ls(bucket, limit=1, max_results=1)
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no bucket {bucket!r}; `gcloud storage buckets create` makes one"
            ) from None
        except Exception as error:
            why = storage_errors.of_bucket(error)
            if not why:
                raise
            raise ConfigError(f"{path}: {why}") from None


# ---------------------------------------------------------------- whole files


def make_folder(path: PathLike) -> None:
    """Makes a folder and those above it; in a bucket there are none."""
    if not in_bucket(path):
        Path(path).mkdir(parents=True, exist_ok=True)


def remove_folder(path: PathLike) -> None:
    """Removes a folder, if it is there, and all that is in it."""
    if in_bucket(path):
        with contextlib.suppress(FileNotFoundError):
            _bucket().rm(str(path), recursive=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Yields a path on this machine to write to. At the end that file becomes `path`, safe where
    it lies; after an exception nothing does.
    """
    target, remote = at(path), in_bucket(path)
    folder = _scratch() if remote else target.parent
    temporary = folder / f"{target.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield temporary
        if remote:
            _bucket().put_file(str(temporary), str(target))
        else:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: PathLike, value: Any) -> None:
    """Atomic: the file is there whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1))


def write_bytes(path: PathLike, data: bytes) -> None:
    """Atomic, likewise."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def create(path: PathLike, text: str) -> bool:
    """Writes a new file; False if there is one. Of several processes that try at once, one does."""
    if in_bucket(path):
        try:
            _bucket().pipe_file(str(path), text.encode(), mode="create")
        except FileExistsError:
            return False
        return True
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except OSError:
        Path(path).unlink(missing_ok=True)  # a full disk must not leave an empty file behind
        raise
    return True


def version(path: PathLike) -> str | None:
    """Of an object of a bucket, a new one after each write; "0": there is none. On a disk None."""
    if not in_bucket(path):
        return None
    try:
        return str(_bucket().info(str(path))["generation"])
    except FileNotFoundError:
        return "0"


def replace(path: PathLike, text: str, version: str | None) -> bool:
    """Writes a file, atomically, if it is still of that `version`; False if not. On a disk the last
    writer's stays.
    """
    if not in_bucket(path):
        with replacing(path) as temporary:
            temporary.write_text(text)
        return True
    bucket, name = _bucket_and_name(path)
    uploads = f"{_bucket()._location}/upload/storage/v1/b/{bucket}/o"
    parameters = {"uploadType": "media", "name": name, "ifGenerationMatch": version}
    return _if_it_matches("POST", uploads, data=text.encode(), **parameters)


def remove(path: PathLike, version: str | None) -> None:
    """Removes a file, if it is there, and still of that `version` where files have one."""
    if not in_bucket(path):
        Path(path).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        _if_it_matches("DELETE", "b/{}/o/{}", *_bucket_and_name(path), ifGenerationMatch=version)


def _bucket_and_name(path):
    bucket, _, name = str(path).removeprefix(BUCKET).partition("/")
    return bucket, name


def _if_it_matches(*request, **parameters):
    """Sends a request; whether the object was of the generation that it is for."""
    try:
        _bucket().call(*request, **parameters)
    except FileExistsError:  # so gcsfs calls the condition that failed
        return False
    return True


# ---------------------------------------------------------------- reading


def modified(path: AnyPath) -> float:
    """When a file was last written: seconds since the epoch, by the clock of where it lies."""
    return path.stat().mtime if in_bucket(path) else path.stat().st_mtime


def size(path: AnyPath) -> int:
    """Bytes of a file."""
    return path.stat().length if in_bucket(path) else path.stat().st_size


def tail(path: PathLike, size: int) -> bytes:
    """The last `size` bytes of a file; b"" where there is none, or it cannot be read."""
    try:
        with at(path).open("rb") as file:
            file.seek(max(file.seek(0, 2) - size, 0))
            return file.read(size)
    except OSError:
        return b""


def local(path: PathLike) -> Path:
    """A file of this machine with what `path` holds now: itself, or a copy of what is in a bucket.

    A copy is made once and kept in CACHE until the object changes. Raises FileNotFoundError.
    """
    source = at(path)
    if not in_bucket(path):
        return source
    generation = str(_bucket().info(str(source))["generation"])
    copies = CACHE / "copies" / str(source).removeprefix(BUCKET)
    copy = copies / generation / source.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with replacing(copy) as temporary:
            _bucket().get_file(str(source), str(temporary))
        for other in copies.iterdir():
            if other.name != generation and other.name.isdigit():
                shutil.rmtree(other, ignore_errors=True)
    return copy


# ---------------------------------------------------------------- files that grow


class Growing:
    """`here`: a folder of this machine for files that are appended to, and that `folder` follows.

    On a disk it is `folder` itself. Of a bucket it is an empty one, with those of the files `names`
    that are there already; what changes in it is uploaded every EVERY seconds, by `flush`, and at
    the end. A context manager.
    """

    def __init__(self, folder: PathLike, names: Iterable[str] = ()):
        self.folder = at(folder)
        self._remote = in_bucket(folder)
        self.here = self.folder
        if self._remote:
            self.here = Path(tempfile.mkdtemp(dir=_scratch()))
            self._uploaded, self._lock, self._ended = {}, threading.Lock(), threading.Event()
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    _bucket().get_file(str(self.folder / name), str(self.here / name))
            self._uploaded = self._files()
            self._thread = threading.Thread(target=self._follow, name="uploads", daemon=True)
            self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def flush(self) -> None:
        """Returns when the bucket has what was appended so far."""
        if not self._remote:
            return
        with self._lock:
            for name, state in self._files().items():
                if self._uploaded.get(name) != state:
                    _bucket().pipe_file(str(self.folder / name), (self.here / name).read_bytes())
                    self._uploaded[name] = state

    def close(self) -> None:
        """Uploads what is left and removes `here`, where that is a copy."""
        if self._remote and not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.flush()
            shutil.rmtree(self.here, ignore_errors=True)

    def _files(self):
        """{name: (size, time)} of the files that are here."""
        files = [path for path in self.here.rglob("*") if path.is_file()]
        return {
            str(p.relative_to(self.here)): ((s := p.stat()).st_size, s.st_mtime_ns) for p in files
        }

    def _follow(self):
        while not self._ended.wait(EVERY):
            # The bucket may be out of reach for a while: `close` raises what does not pass.
            with contextlib.suppress(Exception):
                self.flush()


def _scratch():
    folder = CACHE / "drafts"
    folder.mkdir(parents=True, exist_ok=True)
    _tidy(folder)
    return folder


@functools.cache
def _tidy(folder):
    """Removes, once a process, what killed ones left: what was not written to for a month."""
    for left in folder.iterdir():
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - max(path.stat().st_mtime for path in (left, *left.rglob("*"))) > _LEFT:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
