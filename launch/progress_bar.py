"""Progress of a study's stages: on a terminal a bar with bytes/s and ETA, elsewhere a line every
few seconds. Notes are lines of their own.
"""

import sys
import time

from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from blt_jax.study.progress import Progress

QUIET_SECONDS = 10  # between plain lines


class Printed(Progress):
    """`with Printed() as progress:`; leaving takes an unfinished bar away."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: Bar | None = None
        self._began = self._printed = 0.0

    def __enter__(self) -> "Printed":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def note(self, text: str) -> None:
        self._stop()
        print(text, flush=True)

    def bytes(self, what: str, done: int, of: int) -> None:
        if what != self._what or not of:
            self._start(what)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=of or None)
        elif time.monotonic() - self._printed > QUIET_SECONDS and done:
            self._line(done, of)

    def _start(self, what: str) -> None:
        self._stop()
        self._what, self._began = what, time.monotonic()
        self._printed = self._began
        if sys.stderr.isatty():
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Bar(TextColumn("{task.description}"), *columns)
            self._bar.start()
            self._task = self._bar.add_task(what, total=None)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._what, self._bar = "", None

    def _line(self, done: int, of: int) -> None:
        self._printed = time.monotonic()
        rate = done / (self._printed - self._began)
        unit, name = (1e6, "MB") if of >= 1e6 else (1e3, "kB")
        print(
            f"{self._what}: {done / unit:,.1f} of {of / unit:,.1f} {name}, {rate:,.0f} bytes/s, "
            f"{(of - done) / rate:,.0f} s left",
            flush=True,
        )
