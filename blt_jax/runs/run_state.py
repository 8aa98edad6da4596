"""What a run is doing, read from its folder alone. No jax here.

Whoever starts a run (an engine, or a person) leaves the traces that this reads: its config and
metrics, a lease while it runs, a result when it is done. What only the starter can know, that a run
failed for good, is the last mark of its log (`log_marks`).
"""

import contextlib
import dataclasses
import json
from os import PathLike
from pathlib import Path
from typing import Any

from blt_jax import storage
from blt_jax.runs import lease, log_marks, run_files

STATES = ("running", "failed", "done", "queued")
TAIL = 16 << 10  # bytes read from the end of the metrics


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
    def fraction(self) -> float:
        """Share of its steps that it has made."""
        if self.state == "done":
            return 1.0
        return min(self.step / self.steps, 1.0) if self.steps else 0.0


def read(folder: str | PathLike[str], running: bool = False) -> State:
    """The `State` of a run's folder. `running`: the caller has just started it, its lease may not
    be there yet.
    """
    path: Path = storage.at(folder)
    result = _json(path, run_files.RESULT)
    if result is not None:
        bpb = result.get("validation", {}).get("bpb")
        return State(path.name, "done", bpb=bpb, seconds=result.get("timing", {}).get("seconds"))
    steps = (_json(path, run_files.CONFIG) or {}).get("train", {}).get("steps")
    known = {"name": path.name, "steps": steps, **_progress(path, steps)}
    held = lease.holder(path)
    if running or held:
        return State(state="running", message="" if running else f"by {held}", **known)
    event, message = log_marks.last(path / run_files.LOG)
    if event == "failed":
        return State(state="failed", message=message, **known)
    return State(state="queued", **known)


def duration(seconds: float) -> str:
    """Seconds as a reader says them: '42 s', '3 min 20 s', '2 h 05 min', '3 d 4 h'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def _progress(folder: Path, steps: int | None) -> dict[str, Any]:
    """step, bpb, rate and seconds left by the last two whole lines of the metrics.

    `text_bytes` and `seconds` of a line count from the run's first step.
    """
    lines: list[tuple] = []
    tail = storage.tail(folder / run_files.METRICS, TAIL).decode("utf-8", "replace")
    for text in reversed(tail.splitlines()):
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
    steps_since, bytes_since = step - before[0], text_bytes - before[1]
    seconds_since = seconds - before[2]
    known = {"step": step, "bpb": bpb, "mfu": mfu}
    if seconds_since > 0 and steps_since > 0:
        known["rate"] = bytes_since / seconds_since
        if steps:
            known["seconds"] = (steps - step) * seconds_since / steps_since
    return known


def _json(folder: Path, name: str) -> Any:
    try:
        return run_files.read(folder, name)
    except (OSError, ValueError):
        return None
