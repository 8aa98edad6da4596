"""One run, top to bottom: build, restore, loop, evaluate, close. `launch.train` is its command."""

import time
from collections.abc import Callable
from typing import Any

import jax

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.data import pack, pipeline
from blt_jax.data.store import Store
from blt_jax.eval import bpb
from blt_jax.parallel import processes, sharding
from blt_jax.parallel.mesh import make_mesh
from blt_jax.parallel.run_compute import compute
from blt_jax.record import build, differences, to_dict
from blt_jax.runs import run_files
from blt_jax.runs.checkpoint import Checkpoints
from blt_jax.runs.config import Run
from blt_jax.runs.preemption import Undisturbed
from blt_jax.train import bad_steps, latent_gradient, optimizer
from blt_jax.train.meter import Meter, process_memory
from blt_jax.train.metrics import Metrics
from blt_jax.train.profiler import Profiler
from blt_jax.train.run_progress import RunProgress
from blt_jax.train.step import abstract_state, make_step, new_state

# What may change between two parts of a run: it moves no number beyond the rounding of another
# order of additions.
FREE = (
    "mesh",
    "profile",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep",
    "train.keep_every",
    "train.device_rows",
    "train.remat",
    "train.eval_rows",
    "train.bad_step",
    "train.spike",
)


class Diverged(RuntimeError):
    """The loss stopped being a number, or shot up."""


def train(
    run: Run, folder: Any, stop: Any = None, check: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Trains `run` in `folder` and returns its result, or None if `stop.requested` made it save and
    leave.

    A folder with a checkpoint is continued, to the same numbers that an undisturbed run gives.
    Every process of a run calls it; the first one writes. `check`: raises if the folder is no
    longer ours; called before each save. Raises Diverged with the step's number at a bad step
    (`bad_steps.py`), unless those are skipped, and ConfigError where the folder holds another run.
    """
    folder, stop = storage.at(folder), stop or Undisturbed()
    with stop.nothing_to_save():
        if processes.first():
            _claim(run, folder)
        processes.wait("folder")
        training = _Training(run, folder, check)
    if not training.steps(stop):
        return None
    with stop.nothing_to_save():
        return training.conclude()


def _claim(run, folder):
    """Writes config.json, or refuses a folder that holds the checkpoints of another run."""
    storage.make_folder(folder)
    if (folder / run_files.CONFIG).exists() and (folder / run_files.CHECKPOINTS).exists():
        # With what was not recorded yet at its default.
        before = to_dict(build(Run, run_files.read(folder, run_files.CONFIG)))
        changed = differences(before, to_dict(run))
        changed = [line for line in changed if not line.startswith(FREE)]
        if changed:
            more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
            raise ConfigError(
                f"{folder} holds another run ({'; '.join(changed[:2])}{more}); choose another "
                "--workdir"
            )
    run_files.write(folder, run_files.CONFIG, to_dict(run))


class _Training:
    def __init__(self, run: Run, folder, check):
        self.run, self.folder, self.check = run, folder, check
        self.leads = processes.first()

        # ------------------------------------------------------------ build
        self.mesh = make_mesh(run.mesh)
        self.step_fn = make_step(run, self.mesh)
        self.schedule = optimizer.schedule(run.optimizer, run.train.steps)
        self.header = pack.load_header(folder / run.index)
        self.store = store = Store(folder / run.store, "train")
        # judges the realised bytes per patch by the calibration, if the run names one
        self.drift = None
        if run.calibration:
            self.drift = pipeline.patch_drift(folder / run.index, store, folder / run.calibration)
        part, parts = processes.share(self.mesh, run.train.rows)
        self.rows = pipeline.train_batches(
            folder / run.index, store, run.train.rows, run.data_seed, part, parts
        )

        # ------------------------------------------------------------ restore
        self.checkpoints = Checkpoints(folder, run.train.keep, run.train.keep_every)
        restored = self.checkpoints.restore(abstract_state(run, self.mesh))
        self.start: int
        self.state: Any
        self.start, self.state, saved = restored or (0, new_state(run, self.mesh), None)
        if restored:
            self.say(f"continues at step {self.start} of {run.train.steps}")
        computed = compute(run.train, self.mesh.devices.flat[0].platform)
        self.meter = Meter(run, self.header, computed, list(self.mesh.devices.flat), saved)
        self.metrics = Metrics(folder, self.start) if self.leads else None
        self.progress = RunProgress(run.name, run.train.steps, self.start) if self.leads else None

    def say(self, text):
        if self.leads:
            print(f"{self.run.name}: {text}", flush=True)

    # ---------------------------------------------------------------- loop

    def steps(self, stop):
        """Trains to the end; False if told to stop, and saved."""
        run, mesh = self.run, self.mesh
        profiler, vote = Profiler(run.profile, self.folder), processes.Vote(mesh)
        alone = jax.process_count() == 1
        batches = pipeline.iterate_from(self.rows, self.start)
        pending, stopping = None, False
        for step in range(self.start + 1, run.train.steps + 1):
            clock = time.monotonic()
            local = next(batches)
            wait = time.monotonic() - clock
            if step == 1:
                self._picture(local)
            batch = processes.from_part(mesh, local, run.train.rows)
            profiler.before(step)
            if step == self.start + 1:
                with stop.nothing_to_save(), sharding.context(mesh):
                    step_fn = self.step_fn.lower(self.state, batch, self.schedule).compile()
                    processes.wait("compiled")
            self.state, values = step_fn(self.state, batch, self.schedule)
            profiler.after(step, values)
            if not alone:
                values["stop"] = vote.cast(stop.requested)
            # The host reads a step's numbers while the device is at the next one.
            if pending:
                stopping = self._read(*pending)
            pending = (step, values, wait)
            stopping = stop.requested if alone else stopping
            if stopping or step % run.train.checkpoint_every == 0 or step == run.train.steps:
                self._read(*pending)
                pending = None
                self.check()
                if self.leads:
                    self.metrics.flush()  # not to be fewer lines than steps after a kill
                self.checkpoints.save(step, self.state, self.meter.state())
            if stopping and step < run.train.steps:
                break
        profiler.close()
        self.checkpoints.close()  # when the last save is on disk
        if self.leads:
            self.progress.close()
            self.metrics.close()
        if stopping and step < run.train.steps:
            self.say(f"stopped at step {step}, saved")
            return False
        return True

    def _read(self, step, values, wait):
        """The host's part of step number `step` (from 1). Returns whether some process was told to
        stop.
        """
        run, values = self.run, jax.device_get(values)
        summary = f"loss {values['loss']:.4g}, gradient {values['grad_norm']:.4g} at step {step}"
        self.meter.add(values, wait)
        if (
            not values["good"]
            and run.train.bad_step == "stop"
            or self.meter.in_a_row >= bad_steps.IN_A_ROW
        ):
            skipped = (
                f", after {self.meter.in_a_row - 1} skipped steps"
                if self.meter.in_a_row > 1
                else ""
            )
            raise Diverged(
                f"{run.name}: {summary}{skipped}; lower optimizer.learning_rate (now "
                f"{run.optimizer.learning_rate:g}), "
                "raise optimizer.warmup_steps, or set train.bad_step to 'skip'"
            )
        if not values["good"]:
            self.say(f"skipped: {summary}")
        drifted = self.drift and self.drift.count(int(values["text_bytes"]), int(values["patches"]))
        if drifted:
            self.say(f"step {step}: {drifted}")
        if step % run.train.log_every == 0 or step == run.train.steps:
            record = self.meter.record(step, values)
            if self.leads:
                self.metrics.write(record)
                left = (run.train.steps - step) * self.meter.seconds / step
                self.progress.update(
                    step, record["bpb"], self.meter.text_bytes / self.meter.seconds, left
                )
        return bool(values.get("stop", False))

    def _picture(self, batch):
        if self.leads and "patch_BxL" in batch:
            from blt_jax.train import patch_picture  # matplotlib, once in the life of a run

            keys = ("ids_BxL", "patch_BxL", "segment_BxL")
            self.metrics.picture("patches", patch_picture.draw(*(batch[key][0] for key in keys)), 1)

    # ---------------------------------------------------------------- evaluate, close

    def conclude(self):
        """validation.json and, last, result.json; returns the result."""
        run, folder, meter = self.run, self.folder, self.meter
        validation = Store(folder / run.store, "validation")
        began = time.monotonic()
        documents = bpb.evaluate(
            self.state["params"], run, folder / run.validation_index, validation, self.mesh
        )
        if not self.leads:
            processes.wait("result")
            return {}
        self.check()
        run_files.write(folder, run_files.VALIDATION, {"documents": documents})
        result = {
            "name": run.name,
            "family": run.family,
            "size": run.size,
            "seed": run.train.seed,
            "budget": run.budget,
            "steps": run.train.steps,
            "skipped_steps": meter.skipped,
            "text_bytes": meter.text_bytes,
            "train_bpb": self.metrics.last["bpb"],
            "validation": bpb.summary(documents),
            "row_positions": self.header["row_positions"],
            "sources": pipeline.sources_read(
                folder / run.index, self.store, run.train.rows, run.data_seed, run.train.steps
            ),
            "timing": {
                "seconds": round(meter.seconds + time.monotonic() - began, 3),
                "bytes_per_second": round(meter.text_bytes / max(meter.seconds, 1e-9), 1),
                "peak_memory_bytes": process_memory(),
            },
        }
        if (folder / run_files.COST).exists():  # a run of a study: what it really spent
            planned = run_files.read(folder, run_files.COST)
            scale = meter.text_bytes / planned["bytes"]
            result["train_flops"] = {
                name: flops * scale for name, flops in planned["train_flops"].items()
            }
        lines = run_files.metrics(folder)
        warning = latent_gradient.warning(lines, run.train.steps, run.optimizer.learning_rate)
        if warning:
            self.say(f"warning: {warning}")
            result["warning"] = warning
        run_files.write(folder, run_files.RESULT, result)
        processes.wait("result")
        return result
