"""An attempt at a command of a study, on each host of a slice: python -m blt_jax.engines.host LOG RESULT
COMMAND...

The first host keeps the log, LOG: marks of what happens around what the command prints. RESULT is
the file that the command leaves when it is done. Exits with the command's exit code, 1 where that
is 0 and there is no RESULT.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

from blt_jax import storage
from blt_jax.runs import lease
from blt_jax.runs.preemption import LOST_EXIT_CODE, SAVED_EXIT_CODE
from blt_jax.study import status

POLL = 5.0  # seconds between looks at a lease


def run(log, result, argv):
    """Returns the exit code. `log`, `result`: paths; `argv`: the command."""
    log, result = storage.at(log), storage.at(result)
    if (os.environ.get("TPU_WORKER_ID", "0"), os.environ.get("MEGASCALE_SLICE_ID", "0")) != (
        "0",
        "0",
    ):
        return _attempt(argv, lambda _: None)
    wait(result.parent)
    storage.make_folder(log.parent)
    with (
        storage.Growing(log.parent, [log.name]) as growing,
        open(growing.here / log.name, "ab", buffering=0) as file,
    ):
        file.write(status.mark("started", " ".join(argv)).encode())
        with contextlib.suppress(Exception):  # what follows the log will try again
            growing.flush()  # that it began is known even if the host is lost now
        code = _attempt(argv, file.write)
        if code == 0 and not result.exists():
            code, said = 1, ("failed", f"exit code 0, but no {result.name}")
        elif code == LOST_EXIT_CODE:
            return code  # another host is gone: the cluster starts all of them again
        else:
            said = {0: ("finished",), SAVED_EXIT_CODE: ("saved", "to be continued")}.get(code)
        file.write(status.mark(*(said or ("failed", f"exit code {code}"))).encode())
    return code


def wait(folder):
    """A host that died without a word leaves a lease that counts for `STALE` seconds; the cluster
    is quicker.
    """
    until = time.monotonic() + 2 * lease.STALE
    while lease.holder(folder) and time.monotonic() < until:
        time.sleep(POLL)


def _attempt(argv, write):
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
    while some := child.stdout.read1(1 << 16):
        sys.stdout.buffer.write(some)
        sys.stdout.flush()
        write(some)
    code = child.wait()
    return code if code >= 0 else 128 - code  # as a shell tells a signal


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python -m blt_jax.engines.host LOG RESULT COMMAND...")
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
