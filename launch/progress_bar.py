"""Progress through so many bytes: a bar with bytes/s and ETA on a terminal, a line every few
seconds elsewhere.
"""

import sys
import time

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

QUIET_SECONDS = 10  # between plain lines


class Bytes:
    """`with Bytes("read") as tell: tell(done, of)`, in bytes, as often as one likes."""

    def __init__(self, what):
        self._what, self._bar = what, None
        self._began = self._printed = time.monotonic()

    def __enter__(self):
        if sys.stderr.isatty():
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(TextColumn("{task.description}"), *columns)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None)
        return self

    def __call__(self, done, of):
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=done, total=of)
        elif now - self._printed > QUIET_SECONDS and done:
            self._printed = now
            rate = done / (now - self._began)
            unit, name = (1e6, "MB") if of >= 1e6 else (1e3, "kB")
            told = f"{done / unit:,.1f} of {of / unit:,.1f} {name}"
            print(
                f"{self._what}: {told}, {rate:,.0f} bytes/s, {(of - done) / rate:,.0f} s left",
                flush=True,
            )

    def __exit__(self, *_):
        if self._bar:
            self._bar.stop()
