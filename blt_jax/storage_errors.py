"""What is wrong with a disk, a folder or a bucket: one line for a person instead of a traceback."""

import contextlib
import errno
import os
from collections.abc import Iterator

from blt_jax.config import ConfigError


def of_bucket(error: BaseException) -> str:
    """The line on an exception that came from talking to a bucket; "" for any other."""
    words = " ".join(str(error).split())[:200]
    if isinstance(error, OSError) and words.startswith("Forbidden"):
        return f"the bucket refuses: {words}"
    if type(error).__module__.split(".")[0] in ("gcsfs", "google", "aiohttp"):
        return f"the bucket cannot be reached: {type(error).__name__}: {words}"
    return ""


_FREE, _MEND = "free some space", "mend it, or take another folder"
_OF_ERRNO = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("the quota of the disk is used up", _FREE),
    errno.EFBIG: ("files may not grow that large", _MEND),
    errno.EROFS: ("the file system is read-only", _MEND),
    errno.EACCES: ("permission denied", _MEND),
    errno.ENOTDIR: ("a part of the path is no folder", _MEND),
}


def of_disk(error: BaseException | None) -> tuple[str, str] | None:
    """(What is wrong with a disk or a folder, how to mend it), from anywhere in a chain of
    exceptions; None for others.

    Libraries wrap the system's error, or repeat its words in one of their own.
    """
    while error is not None:
        for number, (what, mend) in _OF_ERRNO.items():
            if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
                file = getattr(error, "filename", None)
                where = f" ({file})" if file else ""
                return f"{what}{where}", f"{mend}, then run the same command again"
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into a ConfigError; others pass."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # ArrayRecord wraps the system's in a RuntimeError
        reason = of_disk(error)
        if reason:
            raise ConfigError(f"{path}: {'; '.join(reason)}") from error
        if isinstance(error, OSError):
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
