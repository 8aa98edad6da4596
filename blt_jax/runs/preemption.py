"""Being told to stop: a signal becomes a flag that a loop reads between two steps, or ends the
process where nothing would be lost.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import FrameType

SAVED_EXIT_CODE = 42  # "saved, run me again", on every engine; 0 means finished and nothing else
# "another process of this run is gone, run me again", where the last save is not this moment's
LOST_EXIT_CODE = 75

# Slurm and Kubernetes send SIGTERM, a person SIGINT, `sbatch --signal` is commonly asked for
# SIGUSR2.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def leave_when_told() -> None:
    """Until a `StopSignal` takes over, `SIGNALS` end the process with SAVED_EXIT_CODE: for the
    seconds of imports.
    """
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: os._exit(SAVED_EXIT_CODE))


def leave_undisturbed() -> None:
    """From here on `SIGNALS` are ignored: the exit code is settled, and Python, as it takes itself
    down, would put back the default, by which a signal kills.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class StopSignal:
    """Context manager; inside it the `SIGNALS` set `requested`. For the main thread.

    Inside `nothing_to_save` a signal ends the process at once with SAVED_EXIT_CODE: Python runs no
    handler while its main thread is in a long call (a compiler may take ten minutes, the grace
    before SIGKILL is often 30 s), so a thread listens. `leave`: called before such an end, with no
    argument (releases what others wait for). A second SIGINT raises KeyboardInterrupt, for whoever
    does not want to wait for the save. The handlers from before are back after the context.
    """

    def __init__(self, leave: Callable[[], object] = lambda: None):
        self.requested = False
        self.leave = leave
        self._interrupts = 0
        self._idle = False
        # One end only, and none while `nothing_to_save` is being left.
        self._ends = threading.Lock()

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        self._ear, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *exception: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._bell.close()
        self._listener.join()
        self._ear.close()

    @contextlib.contextmanager
    def nothing_to_save(self) -> Iterator[None]:
        """Inside, being told to stop ends the process: for phases whose work is saved, or not worth
        saving.
        """
        with self._ends:
            self._idle = True
            if self.requested:
                self._end()
        try:
            yield
        finally:
            with self._ends:
                self._idle = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while heard := self._ear.recv(1):
            if heard[0] in SIGNALS:
                with self._ends:
                    self.requested = True
                    if self._idle:
                        self._end()

    def _end(self) -> None:
        print("told to stop, with nothing to save", flush=True)
        self.leave()
        os._exit(SAVED_EXIT_CODE)


class Undisturbed:
    """A `StopSignal` for whoever is never told to stop."""

    requested = False

    def nothing_to_save(self) -> AbstractContextManager[None]:
        """Does nothing."""
        return contextlib.nullcontext()
