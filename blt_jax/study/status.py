"""What the runs of a study are doing, read from their folders alone, and the table that shows it.

Whoever starts a run (an engine, or a person) leaves the traces that this reads: `config.json`,
`metrics.jsonl`, `lease.json` while it runs, `result.json` when it is done. What only the starter
can know, that a run failed for good, is the last marked line of its `log.txt` (`mark`,
`last_words`).
"""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import re
import sys
import time

import rich.console
import rich.live
import rich.table
import rich.text

from blt_jax import storage
from blt_jax.runs import lease

STATES = ("running", "failed", "done", "queued")
_STYLE = {"running": "bold cyan", "failed": "bold red", "done": "green", "queued": "dim"}
_MEMORY = 60.0  # seconds over which a study's speed is a mean
_TAIL = 16 << 10  # bytes read from the end of metrics.jsonl and log.txt
_MARK = re.compile(r"==== \S+ \S+ (\w+)(?:: (.*))?")


@dataclasses.dataclass(frozen=True)
class State:
    """One run. Unknown numbers are None; `bpb` is the training loss until done, then the
    validation's.
    """

    name: str
    state: str  # one of STATES
    step: int = 0
    steps: int | None = None
    bpb: float | None = None  # bits per byte
    rate: float | None = None  # text bytes per second
    seconds: float | None = None  # left if running, taken if done
    mfu: float | None = None  # `exact`; for known chips
    preempted: int = 0  # attempts that were told to stop, or killed, and had a successor
    message: str = ""  # why it failed, who else runs it, what it waits for

    @property
    def fraction(self):
        return (
            1.0 if self.state == "done" else min(self.step / self.steps, 1.0) if self.steps else 0.0
        )


def read(folder, running=False):
    """The `State` of a run's folder. `running`: the caller has just started it, its lease may not
    be there yet.
    """
    folder = storage.at(folder)
    result = _json(folder / "result.json")
    if result is not None:
        bpb = result.get("validation", {}).get("bpb")
        return State(folder.name, "done", bpb=bpb, seconds=result.get("timing", {}).get("seconds"))
    steps = (_json(folder / "config.json") or {}).get("train", {}).get("steps")
    known = {"name": folder.name, "steps": steps, **_progress(folder / "metrics.jsonl", steps)}
    held = lease.holder(folder)
    if running or held:
        return State(state="running", message="" if running else f"by {held}", **known)
    word, message = last_words(folder / "log.txt")
    if word == "failed":
        return State(state="failed", message=message, **known)
    return State(state="queued", **known)


def mark(word, detail=""):
    """A line for log.txt about an attempt, set apart from the run's own output."""
    return f"==== {time.strftime('%Y-%m-%d %H:%M:%S')} {word}{': ' if detail else ''}{detail}\n"


def append(folder, word, detail=""):
    """Puts a mark at the end of the log.txt of a run that nobody runs now."""
    with (
        storage.Growing(folder, ["log.txt"]) as growing,
        open(growing.here / "log.txt", "a") as log,
    ):
        log.write(mark(word, detail))


def last_words(log):
    """What a log.txt ends with: (word of its last mark, that mark's detail and the latest attempt's
    last own line).

    Both are "" where there is none, so also for a log.txt that no engine wrote, or that does not
    exist.
    """
    word = detail = own = ""
    for line in reversed(re.split(r"[\r\n]+", _tail(log))):
        found = _MARK.match(line)
        if found and not word:
            word, detail = found[1], found[2] or ""
        elif line.strip() and not found:
            own = own or line.strip()
        if (found and found[1] == "started") or (word and own):
            break  # what lies above a start belongs to earlier attempts
    return word, ": ".join(filter(None, (detail, own)))


def preempted(log):
    """How many attempts in a log.txt were told to stop and saved, or ended without a word before
    another started.
    """
    words = []
    with contextlib.suppress(OSError), storage.at(log).open("rb") as lines:
        words = [
            found[1]
            for found in (_MARK.match(line.decode("utf-8", "replace")) for line in lines)
            if found
        ]
    return words.count("saved") + sum(
        pair == ("started", "started") for pair in itertools.pairwise(words)
    )


def show(read, stream=None, every=15.0):
    """Shows the states that `read()` returns: on a terminal in colour, read again every so many
    seconds until no run is running or queued, or Ctrl-C; on a pipe once, in whole plain lines.
    """
    console = rich.console.Console(file=stream or sys.stdout, highlight=False)
    if not console.is_terminal:
        wide = rich.console.Console(
            file=io.StringIO(), width=10_000
        )  # nothing is cut for whoever greps
        wide.print(table(read()))
        for line in wide.file.getvalue().splitlines():
            print(line.rstrip(), file=console.file)
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        rich.live.Live(console=console, auto_refresh=False) as live,
    ):
        while True:
            states = read()
            # The table cuts what is long; why a run failed is read whole.
            why = [
                rich.text.Text(f"{one.name}: {one.message}", "red")
                for one in states
                if one.state == "failed"
            ]
            live.update(rich.console.Group(table(states, width=console.width), *why), refresh=True)
            if not any(one.state in ("running", "queued") for one in states):
                break
            time.sleep(every)


WIDE = 110  # characters of a line, below which a table leaves out what is nice to know


def table(states, room=None, width=WIDE):
    """Table of `states`, the busy first, at most `room` of them, for a line of `width`
    characters.
    """
    rows = sorted(states, key=lambda s: STATES.index(s.state))
    room = len(rows) if room is None else room
    cells = {
        "run": lambda row: rich.text.Text(row.name),
        "state": lambda row: rich.text.Text(row.state, _STYLE[row.state]),
        "step": lambda row: (
            f"{row.step:,} / {row.steps:,}" if row.steps and row.state != "done" else ""
        ),
        "BPB": lambda row: _number(row.bpb, ".3f"),
        "bytes/s": lambda row: _number(row.rate if row.state == "running" else None, ",.0f"),
        "MFU": lambda row: _number(row.mfu if row.state == "running" else None, ".1%"),
        "time": _time,
        "preempted": lambda row: str(row.preempted or ""),
    }
    for name, worth in (
        ("bytes/s", width >= WIDE),
        ("MFU", width >= WIDE and any(row.mfu for row in rows)),
        ("preempted", width >= WIDE and any(row.preempted for row in rows)),
    ):
        if not worth:
            del cells[name]
    made = rich.table.Table(box=None, pad_edge=False, expand=True)
    for name in cells:
        made.add_column(name, no_wrap=True, justify="left" if name in ("run", "state") else "right")
    made.add_column(
        "", no_wrap=True, overflow="ellipsis", ratio=1
    )  # the message has what the others leave
    for row in rows[:room]:
        made.add_row(*(cell(row) for cell in cells.values()), rich.text.Text(row.message))
    if len(rows) > room:
        made.add_row(rich.text.Text(f"... {len(rows) - room} more", "dim"))
    return made


def _time(row):
    if row.seconds is None or row.state not in ("running", "done"):
        return ""
    return duration(row.seconds) + (" left" if row.state == "running" else "")


def _progress(metrics, steps):
    """step, bpb, rate and seconds left by the last two whole lines of metrics.jsonl.

    `text_bytes` and `seconds` of a line count from the run's first step.
    """
    lines = []
    for text in reversed(_tail(metrics).splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            mfu = line.get("speed", {}).get("mfu_exact")
            lines.append((line["step"], line["text_bytes"], line["seconds"], line["bpb"], mfu))
        if len(lines) == 2:
            break
    if not lines:
        return {}
    step, text_bytes, seconds, bpb, mfu = lines[0]
    before = lines[1][:3] if len(lines) == 2 and lines[1][0] < step else (0, 0, 0)
    steps_since, bytes_since, seconds_since = (
        step - before[0],
        text_bytes - before[1],
        seconds - before[2],
    )
    known = {"step": step, "bpb": bpb, "mfu": mfu}
    if seconds_since > 0 and steps_since > 0:
        known["rate"] = bytes_since / seconds_since
        if steps:
            known["seconds"] = (steps - step) * seconds_since / steps_since
    return known


def _tail(path):
    return storage.tail(path, _TAIL).decode("utf-8", "replace")


def _json(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


class Watch:
    """Context manager that shows the runs of a study: a live table on a terminal, lines on a pipe.

    `flops` gives each run folder (in the order to show) its planned training FLOPs, so that
    progress is compute, not the number of runs. Call `update` often; it reads and draws only now
    and then.
    """

    def __init__(self, flops, stream=None, every=None):
        self._flops = {storage.at(folder): float(cost) for folder, cost in flops.items()}
        self._console = rich.console.Console(file=stream or sys.stdout, highlight=False)
        self._tty = self._console.is_terminal
        near = self._tty and not any(map(storage.in_bucket, self._flops))
        self._every = (
            (1.0 if near else 10.0) if every is None else every
        )  # seconds between drawings
        self._live = None
        self._states = {}

    def __enter__(self):
        self._drawn = self._measured = -float("inf")
        self._speed = None  # FLOP/s of all runs in progress, lately
        self._refresh(())
        if self._tty:
            self._live = rich.live.Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *exception):
        self._refresh(())
        if self._live:
            self._live.update(self._table(full=True), refresh=True)
            self._live.stop()
        else:
            self._line(self.summary())

    def update(self, running):
        """Shows the runs as they are now; `running`: folders that the caller runs at this
        moment.
        """
        running = {storage.at(folder) for folder in running}
        due = time.monotonic() - self._drawn >= self._every
        if not due and running == self._running:
            return
        self._refresh(running)
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif due:
            self._line(self.summary())
        if due:
            self._drawn = time.monotonic()

    def summary(self):
        """One line: counts of runs, share of the planned FLOPs, time left."""
        states = list(self._states.values())
        counts = {s: sum(r.state == s for r in states) for s in STATES}
        done, total = self._flops_done(), sum(self._flops.values())
        share = done / total if total else 1.0
        parts = [f"{counts['done']} of {len(states)} runs done"]
        parts += [f"{counts[s]} {s}" for s in ("running", "failed", "queued") if counts[s]]
        parts.append(f"{share:.0%} of the training FLOPs")
        if counts["running"] and self._speed:
            # Runs that failed will not be run by this launcher: they are not ahead of it.
            lost = sum(
                self._flops[f] * (1 - s.fraction)
                for f, s in self._states.items()
                if s.state == "failed"
            )
            longest = max(s.seconds or 0.0 for s in states if s.state == "running")
            parts.append(
                f"about {duration(max((total - done - lost) / self._speed, longest))} left"
            )
        return ", ".join(parts)

    def _refresh(self, running):
        self._running = set(running)
        for folder in self._flops:
            old = self._states.get(folder)
            if old is not None and old.state == "done":
                continue
            new = self._states[folder] = read(folder, folder in running)
            if (
                old is not None
                and new.state != old.state
                and new.state != "queued"
                and not self._live
            ):
                self._line(_sentence(new))
        self._measure()

    def _measure(self):
        """Follows the speed of steps, not of what is done: a study begins with small runs, which
        mostly compile.
        """
        busy = [(cost, self._states[folder]) for folder, cost in self._flops.items()]
        speed = sum(
            cost * (1 - s.fraction) / s.seconds
            for cost, s in busy
            if s.state == "running" and s.seconds
        )
        if speed:
            now = time.monotonic()
            weight = 1.0 if self._speed is None else 1 - math.exp((self._measured - now) / _MEMORY)
            self._speed = speed * weight + (self._speed or 0.0) * (1 - weight)
            self._measured = now

    def _flops_done(self):
        return sum(self._flops[folder] * state.fraction for folder, state in self._states.items())

    def _line(self, text):
        # Plain text, not rich markup: names and log lines may hold brackets.
        self._console.print(rich.text.Text(text), soft_wrap=True)
        self._console.file.flush()

    def _table(self, full=False):
        room = None if full else max(self._console.size.height - 4, 1)
        summary = rich.text.Text(self.summary(), no_wrap=True, overflow="ellipsis")
        return rich.console.Group(table(self._states.values(), room, self._console.width), summary)


def _sentence(state):
    if state.state == "done":
        taken = "" if state.seconds is None else f" in {duration(state.seconds)}"
        return f"done {state.name}: BPB {_number(state.bpb, '.4f')}{taken}"
    if state.state == "failed":
        return f"failed {state.name}: {state.message}"
    where = f" {state.message}" if state.message else ""
    return f"started {state.name}{where}" + (f" from step {state.step:,}" if state.step else "")


def _number(value, form):
    return "" if value is None else format(value, form)


def duration(seconds):
    """Seconds as a reader says them: '42 s', '3 min 20 s', '2 h 05 min', '3 d 4 h'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
