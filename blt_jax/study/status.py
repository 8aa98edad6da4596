"""Tables and lines that show what the runs of a study are doing."""

import contextlib
import io
import math
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TextIO

import rich.console
import rich.live
import rich.table
import rich.text

from blt_jax import storage
from blt_jax.runs import run_state
from blt_jax.runs.run_state import STATES, State, duration

WIDE = 110  # characters of a line, below which a table leaves out what is nice to know
QUIET = 60.0  # seconds on a pipe between two progress lines while no run changes its state
_STYLE = {"running": "bold cyan", "failed": "bold red", "done": "green", "queued": "dim"}
_MEMORY = 60.0  # seconds over which a study's speed is a mean


def show(
    read: Callable[[], list[State]], stream: TextIO | None = None, every: float = 15.0
) -> None:
    """Shows the states that `read()` returns: on a terminal in colour, read again every so many
    seconds until no run is running or queued, or Ctrl-C; on a pipe once, in whole plain lines.
    """
    console = rich.console.Console(file=stream or sys.stdout, highlight=False)
    if not console.is_terminal:
        whole = io.StringIO()  # nothing is cut for whoever greps
        rich.console.Console(file=whole, width=10_000).print(table(read()))
        for line in whole.getvalue().splitlines():
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
                rich.text.Text(f"{run.name}: {run.message}", "red")
                for run in states
                if run.state == "failed"
            ]
            live.update(rich.console.Group(table(states, width=console.width), *why), refresh=True)
            if not any(run.state in ("running", "queued") for run in states):
                break
            time.sleep(every)


def table(states: Iterable[State], room: int | None = None, width: int = WIDE) -> rich.table.Table:
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
    grid = rich.table.Table(box=None, pad_edge=False, expand=True)
    for name in cells:
        grid.add_column(name, no_wrap=True, justify="left" if name in ("run", "state") else "right")
    # The message has what the others leave.
    grid.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows[:room]:
        grid.add_row(*(cell(row) for cell in cells.values()), rich.text.Text(row.message))
    if len(rows) > room:
        grid.add_row(rich.text.Text(f"... {len(rows) - room} more", "dim"))
    return grid


def _time(row):
    if row.seconds is None or row.state not in ("running", "done"):
        return ""
    return duration(row.seconds) + (" left" if row.state == "running" else "")


class Watch:
    """Context manager that shows the runs of a study: a live table on a terminal, lines on a pipe.

    `flops` gives each run folder (in the order to show) its planned training FLOPs, so that
    progress is compute, not the number of runs. Call `update` often; it reads and draws only now
    and then, `every` so many seconds. On a pipe a summary follows when runs have changed their
    states, or after QUIET seconds.
    """

    def __init__(
        self,
        flops: Mapping[Path, float],
        stream: TextIO | None = None,
        every: float | None = None,
    ):
        self._flops = {storage.at(folder): float(cost) for folder, cost in flops.items()}
        self._console = rich.console.Console(file=stream or sys.stdout, highlight=False)
        self._tty = self._console.is_terminal
        near = self._tty and not any(map(storage.in_bucket, self._flops))
        self._every = (1.0 if near else 10.0) if every is None else every
        self._live: rich.live.Live | None = None
        self._states: dict[Path, State] = {}

    def __enter__(self) -> "Watch":
        self._drawn = self._measured = self._summed = -float("inf")  # when last
        self._counted: dict[str, int] = {}  # of the last summary on a pipe
        self._said = ""  # the last line on a pipe
        self._speed: float | None = None  # FLOP/s of all runs in progress, lately
        self._refresh(())
        if self._tty:
            self._live = rich.live.Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._refresh(())
        if self._live:
            self._live.update(self._table(full=True), refresh=True)
            self._live.stop()
        elif self.summary() != self._said:
            self._line(self.summary())

    def update(self, running: Collection[Path]) -> None:
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
            self._sum_up()
        if due:
            self._drawn = time.monotonic()

    def _sum_up(self) -> None:
        """On a pipe: the summary, unless it would say again what the last one said."""
        counts = self._counts()
        if counts == self._counted and time.monotonic() - self._summed < QUIET:
            return
        self._line(self.summary())
        self._counted, self._summed = counts, time.monotonic()

    def _counts(self) -> dict[str, int]:
        states = [run.state for run in self._states.values()]
        return {state: states.count(state) for state in STATES}

    def summary(self) -> str:
        """One line: counts of runs, share of the planned FLOPs, time left."""
        states = list(self._states.values())
        counts = self._counts()
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

    def _refresh(self, running: Collection[Path]) -> None:
        self._running = set(running)
        for folder in self._flops:
            old = self._states.get(folder)
            if old is not None and old.state == "done":
                continue
            new = self._states[folder] = run_state.read(folder, folder in running)
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

    def _line(self, text: str) -> None:
        self._said = text
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
