"""metrics.jsonl (the truth) and TensorBoard (a view of it), continued exactly after a resume."""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter


class Metrics:
    """Appends one JSON line per logged step. Lines at or beyond `start` (a resumed step) are dropped first."""

    def __init__(self, folder, start):
        self.path = Path(folder) / "metrics.jsonl"
        kept = []
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:  # a kill in the middle of a write
                    break
                if record["step"] <= start:
                    kept.append(line)
        replacement = self.path.with_suffix(".tmp")
        replacement.write_text("".join(line + "\n" for line in kept))
        os.replace(replacement, self.path)
        self.file = self.path.open("a", buffering=1)
        self.board = SummaryWriter(logdir=str(Path(folder) / "tensorboard"), purge_step=start + 1)
        self.last = json.loads(kept[-1]) if kept else {}

    def write(self, record):
        """`record` holds "step" (optimiser steps done) and numbers."""
        self.file.write(json.dumps(record) + "\n")
        self.last = record
        for name, value in record.items():
            if name != "step":
                self.board.add_scalar(name, value, record["step"])

    def close(self):
        self.file.close()
        self.board.close()
