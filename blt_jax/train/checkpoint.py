"""Checkpoints of a run: parameters, optimiser state, step, and the few host numbers that go with them."""

import json
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from blt_jax.config import ConfigError, Run
from blt_jax.record import build


class Checkpoints:
    """A run's `checkpoints/` folder; the newest complete one counts. Orbax makes each save atomic."""

    def __init__(self, folder, keep=1):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self.manager = ocp.CheckpointManager((Path(folder) / "checkpoints").absolute(), options=options)

    @property
    def empty(self):
        return self.manager.latest_step() is None

    def save(self, step, state, host):
        """`host`: a JSON-able dict kept beside the state. A step that is already saved is left alone."""
        if step != self.manager.latest_step():
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
            self.manager.save(step, args=args)

    def restore(self, state):
        """(step, state, host) of the newest checkpoint, laid out like `state`; None when there is none."""
        step = self.manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), host=ocp.args.JsonRestore())
        found = self.manager.restore(step, args=args)
        return step, found["state"], found["host"]

    def close(self):
        self.manager.close()


def load_params(run_folder):
    """(Run, parameter tree as float32 NumPy) of a run's newest checkpoint. Raises ConfigError where there is none."""
    logging.set_verbosity(logging.WARNING)  # orbax tells every restore at INFO
    folder = Path(run_folder)
    try:
        run = build(Run, json.loads((folder / "config.json").read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder / 'config.json'}: cannot be read: {error}") from None
    saved = folder / "checkpoints"
    manager = ocp.CheckpointManager(saved.absolute()) if saved.is_dir() else None
    if manager is None or manager.latest_step() is None:
        raise ConfigError(f"{folder}: the run has saved no checkpoint yet; train it first")
    state = manager.restore(manager.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore()))["state"]
    manager.close()
    return run, jax.tree.map(np.asarray, state["params"])
