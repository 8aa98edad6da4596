"""What a window of training steps says: loss, norms, patches, waste, speed, FLOP/s by convention,
memory.

Sums over a window live on the host and go into checkpoints, so that a window which a kill cuts in
two reads like any other; only what a clock measured differs.
"""

import math
import resource
import sys
import time
from typing import Any

import jax

from blt_jax.flops import analytic, executed, hardware
from blt_jax.nn.compute import Compute
from blt_jax.runs.config import Run

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_SUMS = (
    "nats",
    "good_bytes",
    "text_bytes",
    "positions",
    "patches",
    "steps",
    "seconds",
    "wait_seconds",
)


# Metrics of `make_step` whatever the model, and the loop's vote.
STEP = tuple(
    "nats text_bytes positions patches loss good grad_norm learning_rate norms stop".split()
)


class Meter:
    """Host side of a run's steps. `header`: of its row index; `devices`: jax devices that work
    together.

    `saved`: the `state()` that a checkpoint kept, to go on from.
    """

    def __init__(
        self,
        run: Run,
        header: dict[str, Any],
        compute: Compute,
        devices: list[jax.Device],
        saved: dict[str, Any] | None = None,
    ):
        self.run, self.header, self.compute, self.devices = run, header, compute, devices
        saved = saved or {
            "text_bytes": 0,
            "seconds": 0.0,
            "skipped": 0,
            "in_a_row": 0,
            "window": {},
        }
        self.text_bytes, self.seconds = saved["text_bytes"], saved["seconds"]  # of the whole run
        self.skipped, self.in_a_row = saved["skipped"], saved["in_a_row"]
        self.window = dict.fromkeys(_SUMS, 0) | saved["window"]
        self._clock = time.monotonic()

    def state(self) -> dict[str, Any]:
        """JSON-able; `Meter(..., saved=state)` goes on as this meter would."""
        keys = ("text_bytes", "seconds", "skipped", "in_a_row")
        return {key: getattr(self, key) for key in keys} | {"window": dict(self.window)}

    def add(self, values: dict[str, Any], wait: float) -> None:
        """One step's metrics (NumPy scalars), and the seconds that the loop waited for its
        batch.
        """
        now = time.monotonic()
        window, elapsed = self.window, now - self._clock
        self._clock = now
        self.seconds += elapsed
        self.text_bytes += int(values["text_bytes"])
        window["seconds"] += elapsed
        window["wait_seconds"] += wait
        window["steps"] += 1
        for name in ("text_bytes", "positions", "patches"):
            window[name] += int(values[name])
        for name in _own(values):
            window[name] = window.get(name, 0) + float(values[name])
        if values["good"]:
            self.in_a_row = 0
            window["nats"] += float(values["nats"])
            window["good_bytes"] += int(values["text_bytes"])
        else:
            self.in_a_row += 1
            self.skipped += 1

    def record(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """The line of metrics.jsonl for the window that ends with `step`, whose metrics are
        `values`; a new one begins.

        `bpb` is over the window's good steps; `grad_norm`, `norms` and `learning_rate` are the last
        step's; `model` holds the means per step of the model's own metrics. `speed` is what a clock
        measured. FLOP/s count text bytes really read, training as 3 x forward ("executed": whole
        rows with what is recomputed); `mfu_exact` is there for chips in `flops/hardware.py`.
        """
        window, self.window = self.window, dict.fromkeys(_SUMS, 0)
        rows, row = self.run.train.rows * window["steps"], self.header
        line = {
            "step": step,
            "bpb": window["nats"] / math.log(2) / max(window["good_bytes"], 1),
            "learning_rate": float(values["learning_rate"]),
            "grad_norm": float(values["grad_norm"]),
            "text_bytes": self.text_bytes,
            "seconds": round(self.seconds, 3),
            "skipped": self.skipped,
            "position_waste": 1 - window["positions"] / (rows * row["row_positions"]),
        }
        if self.run.model.unit == "patch":
            line["bytes_per_patch"] = window["text_bytes"] / max(window["patches"], 1)
        if row["row_patches"]:
            line["patch_waste"] = 1 - window["patches"] / (rows * row["row_patches"])
        if own := _own(values):
            line["model"] = {name: window.get(name, 0) / window["steps"] for name in own}
        line["norms"] = {
            of: {part: float(x) for part, x in parts.items()}
            for of, parts in values["norms"].items()
        }
        line["speed"] = self._speed(window)
        return line

    def _speed(self, window):
        seconds = max(window["seconds"], 1e-9)
        speed = {
            "bytes_per_second": window["text_bytes"] / seconds,
            "step_seconds": seconds / window["steps"],
            "wait_seconds": window["wait_seconds"] / window["steps"],
            "memory_bytes": _memory(),
        }
        if self.run.model.unit == "patch":
            speed["patches_per_second"] = window["patches"] / seconds
        flops = self._flops(window)
        speed["flops_per_second"] = {
            convention: count / seconds for convention, count in flops.items()
        }
        device = self.devices[0]
        # A TPU makes float32 of bfloat16.
        bfloat16 = self.compute.dtype.itemsize == 2 or device.platform == "tpu"
        arithmetic = "bfloat16" if bfloat16 else "tf32"
        mfu = hardware.mfu(
            flops["exact"] / seconds, device.device_kind, arithmetic, len(self.devices)
        )
        return speed if mfu is None else speed | {"mfu_exact": mfu}

    def _flops(self, window):
        """Training FLOPs of a window by convention."""
        model, row = self.run.model, self.header
        units = window["patches" if model.unit == "patch" else "positions"]
        bytes_per_unit = max(window["text_bytes"], 1) / max(units, 1)
        context = row["row_positions"] * (bytes_per_unit if model.reads == "token" else 1)
        flops: dict[str, float] = {}
        for convention in ("paper", "exact"):
            forward = analytic.per_byte(
                model, patch_size=bytes_per_unit, context_bytes=context, convention=convention
            )
            flops[convention] = analytic.training(forward.total) * window["text_bytes"]
        if self.compute.attention in executed.ATTENTIONS:  # the work of a kernel is not counted
            whole = analytic.executed_row(
                model,
                row["row_positions"],
                row["row_patches"],
                remat=self.compute.remat,
                training=True,
                attention=self.compute.attention,
            )
            flops["executed"] = whole.total * self.run.train.rows * window["steps"]
        return flops


def _own(values):
    """Names of the metrics that are the model's own (`families.Losses`)."""
    return [name for name in values if name not in STEP]


def _memory():
    """Most bytes in use so far: of our first device where it reports them, else of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", process_memory())


def process_memory() -> int:
    """Most bytes that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
