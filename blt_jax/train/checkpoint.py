"""Checkpoints of a run: parameters, optimiser state, step, and the few host numbers that go with them."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp


class Checkpoints:
    """A run's `checkpoints/` folder; the newest complete one counts. Orbax makes each save atomic."""

    def __init__(self, folder, keep=1):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self.manager = ocp.CheckpointManager((Path(folder) / "checkpoints").absolute(), options=options)

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
