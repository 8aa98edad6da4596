"""The files of a run's folder: each name stands here and nowhere else. No jax here."""

import json
from os import PathLike
from typing import Any

from blt_jax import storage

CONFIG = "config.json"  # the resolved Run
COST = "cost.json"  # what the plan of a study says that the run costs
METRICS = "metrics.jsonl"  # a record for each logged step
TENSORBOARD = "tensorboard"  # the same for TensorBoard, a folder
CHECKPOINTS = "checkpoints"  # a folder
VALIDATION = "validation.json"  # bits of each validation document
RESULT = "result.json"  # written last: it is there if and only if the run is done
LOG = "log.txt"  # what the run prints, and marks of its attempts (`log_marks`)
LEASE = "lease.json"  # who writes to the folder now (`lease`)


def done(folder: str | PathLike[str]) -> bool:
    """Whether a run is done."""
    return (storage.at(folder) / RESULT).exists()


def read(folder: str | PathLike[str], name: str) -> Any:
    """What one of the JSON files says. Raises OSError, json.JSONDecodeError."""
    return json.loads((storage.at(folder) / name).read_text())


def write(folder: str | PathLike[str], name: str, value: Any) -> None:
    """Writes one of the JSON files, whole or not at all."""
    storage.write_json(storage.at(folder) / name, value)


def metrics(folder: str | PathLike[str]) -> list[dict[str, Any]]:
    """The records of `METRICS`, in the order of steps."""
    lines = (storage.at(folder) / METRICS).read_text().splitlines()
    return [json.loads(line) for line in lines]
