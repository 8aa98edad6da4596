"""Progress of one run: a bar with BPB, bytes/s and ETA on a terminal, a line every few seconds
elsewhere.
"""

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 10  # between plain lines


class RunProgress:
    def __init__(self, name, steps, start):
        self.name, self.steps, self.printed = name, steps, time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[word]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns)
            self.bar.start()
            self.task = self.bar.add_task(name, total=steps, completed=start, word="")

    def update(self, step: int, bpb: float, bytes_per_second: float, seconds_left: float) -> None:
        word = f"{bpb:.3f} BPB, {bytes_per_second:,.0f} bytes/s"
        if self.bar:
            self.bar.update(self.task, completed=step, word=word)
        elif time.monotonic() - self.printed > QUIET_SECONDS:
            self.printed = time.monotonic()
            print(
                f"{self.name}: step {step}/{self.steps}, {word}, {seconds_left:.0f} s left",
                flush=True,
            )

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
