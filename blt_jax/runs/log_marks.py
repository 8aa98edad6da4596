"""Marks in a run's log.txt: lines that say what happens to its attempts, between what these print.

An engine writes "started", and at the end of an attempt one of "finished", "saved" (run it again),
"stopped" (with the launcher, or by the cluster), "retry" or "failed" (for good); "queued" cancels
the "failed" of an earlier launch.
"""

import contextlib
import itertools
import re
import time
from pathlib import Path

from blt_jax import storage
from blt_jax.runs.run_files import LOG

TAIL = 16 << 10  # bytes read from the end of a log
_MARK = re.compile(r"==== \S+ \S+ (\w+)(?:: (.*))?")


def line(event: str, detail: str = "") -> str:
    """The line that marks `event`, with its time."""
    return f"==== {time.strftime('%Y-%m-%d %H:%M:%S')} {event}{': ' if detail else ''}{detail}\n"


def append(folder: Path, event: str, detail: str = "") -> None:
    """Marks `event` at the end of the log of a run that nobody runs now."""
    with storage.Growing(folder, [LOG]) as growing, open(growing.here / LOG, "a") as log:
        log.write(line(event, detail))


def last(log: Path) -> tuple[str, str]:
    """(event of a log's last mark, that mark's detail and the latest attempt's last own line).

    Both are "" where there is none, so also for a log that no engine wrote, or that does not exist.
    """
    event = detail = own = ""
    tail = storage.tail(log, TAIL).decode("utf-8", "replace")
    for text in reversed(re.split(r"[\r\n]+", tail)):
        mark = _MARK.match(text)
        if mark and not event:
            event, detail = mark[1], mark[2] or ""
        elif text.strip() and not mark:
            own = own or text.strip()
        if (mark and mark[1] == "started") or (event and own):
            break  # what lies above a start belongs to earlier attempts
    return event, ": ".join(filter(None, (detail, own)))


def preemptions(log: Path) -> int:
    """How many attempts of a log were told to stop and saved, or ended without a mark before
    another started.
    """
    events: list[str] = []
    with contextlib.suppress(OSError), storage.at(log).open("rb") as lines:
        marks = (_MARK.match(text.decode("utf-8", "replace")) for text in lines)
        events = [mark[1] for mark in marks if mark]
    killed = sum(pair == ("started", "started") for pair in itertools.pairwise(events))
    return events.count("saved") + killed
