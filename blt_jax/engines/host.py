"""An attempt at a command of a study, on each host of a slice:

    python -m blt_jax.engines.host LOG RESULT COMMAND...

The first host keeps the log, LOG: marks of what happens around what the command prints. RESULT is
the file that the command leaves when it is done. Exits with the command's exit code, 1 where that
is 0 and there is no RESULT.
"""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from blt_jax import storage
from blt_jax.runs import lease, log_marks
from blt_jax.runs.preemption import LOST_EXIT_CODE, SAVED_EXIT_CODE

POLL = 5.0  # seconds between looks at a lease


def run(log: Path, result: Path, argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code, as said above."""
    numbers = (os.environ.get(name, "0") for name in ("TPU_WORKER_ID", "MEGASCALE_SLICE_ID"))
    if any(number != "0" for number in numbers):
        return _attempt(argv, lambda _: None)
    wait(result.parent)
    storage.make_folder(log.parent)
    with (
        storage.Growing(log.parent, [log.name]) as growing,
        open(growing.here / log.name, "ab", buffering=0) as file,
    ):
        file.write(log_marks.line("started", " ".join(argv)).encode())
        with contextlib.suppress(Exception):  # what follows the log will try again
            growing.flush()  # that it began is known even if the host is lost now
        code = _attempt(argv, file.write)
        mark = ("failed", f"exit code {code}")
        if code == LOST_EXIT_CODE:
            return code  # another host is gone: the cluster starts all of them again
        if code == SAVED_EXIT_CODE:
            mark = ("saved", "to be continued")
        elif code == 0 and result.exists():
            mark = ("finished", "")
        elif code == 0:
            code, mark = 1, ("failed", f"exit code 0, but no {result.name}")
        file.write(log_marks.line(*mark).encode())
    return code


def wait(folder: Path) -> None:
    """Waits until nobody holds the folder, or until the lease of a host that died must be stale:
    the cluster may be quicker to start another.
    """
    until = time.monotonic() + 2 * lease.STALE
    while lease.holder(folder) and time.monotonic() < until:
        time.sleep(POLL)


def _attempt(argv: Sequence[str], write: Callable[[bytes], object]) -> int:
    """Runs `argv`, passes SIGTERM on to it, shows what it prints and `write`s it. Returns its exit
    code.
    """
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        print(f"cannot run {argv[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    assert isinstance(child.stdout, io.BufferedReader)
    while printed := child.stdout.read1(1 << 16):
        sys.stdout.buffer.write(printed)
        sys.stdout.flush()
        write(printed)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell tells a signal


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python -m blt_jax.engines.host LOG RESULT COMMAND...")
    sys.exit(run(storage.at(sys.argv[1]), storage.at(sys.argv[2]), sys.argv[3:]))
