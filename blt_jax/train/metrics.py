"""metrics.jsonl (the truth) and TensorBoard (a view of it), continued exactly after a resume."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from blt_jax.runs.run_files import METRICS, TENSORBOARD
from blt_jax.storage import Growing, replacing


@contextlib.contextmanager
def _without(module):
    """An import that finds no `module`, unless it is loaded already."""
    absent = module not in sys.modules
    if absent:
        sys.modules[module] = None
    try:
        yield
    finally:
        if absent:
            del sys.modules[module]


# Where there is a torch, tensorboardX would spend seconds on loading it, for nothing.
with _without("torch"):
    from tensorboardX import SummaryWriter


if TYPE_CHECKING:  # matplotlib takes long to import, and most runs draw nothing
    from matplotlib.figure import Figure


class Metrics:
    """Appends one JSON line per logged step. Lines at or beyond `start` (a resumed step) are
    dropped first.
    """

    def __init__(self, folder, start):
        self._growing = Growing(folder, [METRICS])
        self.path = self._growing.here / METRICS
        kept = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # a kill in the middle of a write
                    break
                if record["step"] <= start:
                    kept.append(line)
        with replacing(self.path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
        self.file = self.path.open("a", buffering=1)
        self.board = SummaryWriter(
            logdir=str(self._growing.here / TENSORBOARD), purge_step=start + 1
        )
        self.last = json.loads(kept[-1]) if kept else {}

    def write(self, record: dict[str, Any]) -> None:
        """`record` holds "step" (optimiser steps done) and numbers, or dicts of them."""
        self.file.write(json.dumps(record) + "\n")
        self.last = record
        for name, value in _flat(record):
            if name != "step":
                self.board.add_scalar(name, value, record["step"])

    def picture(self, name: str, figure: "Figure", step: int) -> None:
        """A matplotlib figure in TensorBoard, and as NAME.png in the run's folder."""
        figure.savefig(self.path.with_name(f"{name}.png"), dpi=110)
        self.board.add_figure(name, figure, step)

    def flush(self) -> None:
        """Returns when what was written so far is where the run's folder lies."""
        self.board.flush()
        self._growing.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()
        self._growing.close()


def _flat(record, prefix=""):
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
