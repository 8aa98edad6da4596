"""A parent that waits for a training process, and says how it ended, in words and by the exit code.

When a process of a run dies, jax's runtime aborts the others inside whatever they are doing
(SIGABRT, a page of stack): no handler of theirs gets to speak. The parent holds nothing of jax's
and does.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from blt_jax.runs.preemption import LOST_EXIT_CODE, SAVED_EXIT_CODE, SIGNALS


def supervised(body: Callable[[], int], lost: str) -> int:
    """Runs `body` in a child process and returns its exit code, or in the child what `body`
    returns.

    `lost`: the line to print where the runtime aborts the child, because another process of the run
    is gone; the exit code is 75 then, or 42 where the run had been told to stop. Signals of
    `SIGNALS` reach the child; it dies with us.
    """
    parent = os.getpid()
    # No thread of jax's or ours runs yet, so that a fork is safe; what is imported is imported
    # once.
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
        if sys.platform == "linux":
            PR_SET_PDEATHSIG = 1
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
        return body()
    stopped = False  # we were told to stop

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code >= 0:
        return code
    aborted = code == -signal.SIGABRT
    if stopped and aborted:  # another process was told first and left nothing to wait for
        return SAVED_EXIT_CODE
    why = lost if aborted else f"ended by {signal.Signals(-code).name}"
    print(f"error: {why}", file=sys.stderr)
    return LOST_EXIT_CODE if aborted else 1
