"""Runs a program that a model wrote: in a Python process of its own, in an empty folder, with
limits.

Limits are of seconds, memory and file size; there is no environment and no input. This is a fence
against accidents, not against malice: it does not shut the network or the reading of files. Run it
where nothing is at stake.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

SECONDS = 5
MEMORY = 1 << 30  # bytes of address space
FILE = 1 << 20  # bytes of a file that it writes
REACHED = 87  # exit code of a program that ran to its end: one that leaves by itself has not passed
START = f"""
import os, resource, sys
limits = {{"AS": {MEMORY}, "FSIZE": {FILE}, "CORE": 0, "CPU": int(sys.argv[1])}}
for name, most in limits.items():
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))
exec(compile(sys.stdin.read(), "program", "exec"), {{"__name__": "__main__"}})
os._exit({REACHED})
"""


def passes(program: str, seconds: int = SECONDS) -> bool:
    """Whether `program` runs to its end, without an error and in time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-c", START, str(seconds)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(program.encode("utf-8", "replace"), timeout=2 * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        return process.wait() == REACHED
