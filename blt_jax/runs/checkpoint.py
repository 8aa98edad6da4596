"""Checkpoints of a run: parameters, optimiser state, step, and the few host numbers that go with
them.

Orbax writes them in the background, each whole or not at all. A checkpoint carries sums over the
bits of its state: what comes back must have the same, for a storage that lost a piece may read it
as zeros.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from blt_jax import storage, storage_errors
from blt_jax.config import ConfigError
from blt_jax.parallel import processes
from blt_jax.record import build
from blt_jax.runs import run_files
from blt_jax.runs.config import Run

DAMAGED = "damaged-"  # before the step in the name of a checkpoint that could not be read


def _manager(folder: Path, **options: Any) -> ocp.CheckpointManager:
    """Orbax's manager of a folder of checkpoints, each a tree of arrays, `state`, and a JSON-able
    value, `host`.
    """
    # Replicas share the writing of an array only where it is large: for each piece of one a program
    # is compiled.
    arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=1 << 20)
    kinds = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, arrays), (np.ndarray, ocp.type_handlers.NumpyHandler())
    )
    # Named here, as a manager that has not saved nor restored yet knows of none, and tells nothing
    # of what is there.
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=kinds),
        "host": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(
        folder, item_handlers=handlers, options=ocp.CheckpointManagerOptions(**options)
    )


def bit_sums(state: Mapping[str, Any]) -> dict[str, Any]:
    """uint32 of each part of a state (the keys of a dict): the sum of all its bits as unsigned
    numbers. In any order, so for any layout; of arrays of NumPy or jax.
    """

    def bits(x: Any) -> Any:
        return x.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[x.dtype.itemsize]).sum(
            dtype=np.uint32
        )

    with np.errstate(over="ignore"):
        return {
            name: sum(
                ((i + 1) * bits(x) for i, x in enumerate(jax.tree.leaves(part))), start=np.uint32(0)
            )
            for name, part in state.items()
        }


_bit_sums = jax.jit(bit_sums)


class Checkpoints:
    """A run's `checkpoints/` folder. The newest `keep` stay, and those of steps that `keep_every`
    (if any) divides.

    `save` returns when the state is copied; the files are written while training goes on. Raises
    ConfigError where the folder cannot be written: what was saved before is intact.
    """

    def __init__(self, folder: str | PathLike[str], keep: int = 2, keep_every: int = 0):
        self.folder = storage.absolute(folder) / run_files.CHECKPOINTS
        policies: list[Any] = [keeping.LatestN(keep)]
        policies += [keeping.EveryNSteps(keep_every)] if keep_every else []
        with self._clear_words():
            self.manager = _manager(
                self.folder,
                preservation_policy=keeping.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,  # of a save that was killed
                # Folders are made at once: made in the background, on a full disk, they end in a
                # wait of minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )

    def save(self, step: int, state: Mapping[str, Any], host: Mapping[str, Any]) -> None:
        """`host`: a JSON-able dict kept beside the state. A step that is already saved is left
        alone.
        """
        if step == self.manager.latest_step():
            return
        host_part = {
            "host": host,
            "bit_sums": {part: int(value) for part, value in _bit_sums(state).items()},
        }
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), host=ocp.args.JsonSave(host_part)
        )
        with self._clear_words():
            self.manager.save(step, args=args)

    def restore(self, abstract: Any) -> tuple[int, Any, Any] | None:
        """(step, state, host) of the newest checkpoint that can be read, laid out like `abstract`
        (jax.ShapeDtypeStructs with shardings); None when there is none at all.

        Of newer ones that are damaged a line is printed; they are moved aside as `damaged-STEP`.
        Raises ConfigError where all are damaged.
        """
        newest = _newest(self.manager, lambda step: _laid_out(abstract), _bit_sums)
        if newest is None:
            return None
        for damaged in [step for step in self.manager.all_steps() if step > newest[0]]:
            if processes.first():
                _move_aside(self.folder, damaged)
        processes.wait("damaged checkpoints")
        self.manager.reload()
        return newest

    def close(self) -> None:
        """Returns when the last save is on disk."""
        with self._clear_words():
            self.manager.close()

    @contextlib.contextmanager
    def _clear_words(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            why = storage_errors.of_disk(error)
            if not why:
                raise
            # Every other writer of this save fails likewise, and asyncio would print a page for
            # each at the end.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise ConfigError(
                f"{self.folder}: cannot save, {why[0]}; what was saved before is intact: {why[1]}"
            ) from error


def _newest(
    manager: ocp.CheckpointManager,
    wanted: Callable[[int], Any],
    sums: Callable[[Any], Mapping[str, Any]],
) -> tuple[int, Any, Any] | None:
    """(step, state, host) of a manager's newest readable checkpoint; None when it has none.

    `wanted(step)`: what to read of one, as orbax's PyTreeRestore; `sums`: `bit_sums`, for what it
    then is. Raises ConfigError when there are checkpoints and none can be read.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
        state, host, why = None, {}, ""
        try:
            restored = manager.restore(
                step, args=ocp.args.Composite(state=wanted(step), host=ocp.args.JsonRestore())
            )
            state, host = restored["state"], restored["host"]
            saved = host.get("bit_sums", {})  # checkpoints of the first versions have none
            if any(int(value) != saved.get(part, value) for part, value in sums(state).items()):
                why = "its content is not what was saved"
        except Exception as error:  # orbax raises whatever it likes for a damaged file
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if processes.everyone(not why):
            return step, state, host["host"]
        del state
        older = [s for s in steps if s < step]
        then = f"falling back on step {older[0]}" if older else "there is none before it"
        print(
            f"checkpoint of step {step} cannot be read ({why or 'by another process'}): {then}",
            flush=True,
        )
    if steps:
        raise ConfigError(
            f"{manager.directory}: none of {len(steps)} checkpoints can be read; delete it to "
            "begin anew"
        )
    return None


def _laid_out(abstract: Any) -> ocp.args.PyTreeRestore:
    """All of a state, laid out like `abstract`."""
    return ocp.args.PyTreeRestore(abstract, ocp.checkpoint_utils.construct_restore_args(abstract))


def _params(manager: ocp.CheckpointManager, step: int) -> ocp.args.PyTreeRestore:
    """The parameters alone, as NumPy: a third of a state, and no device has to hold them."""
    there = {"params": manager.item_metadata(step)["state"].tree["params"]}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), there)
    return ocp.args.PyTreeRestore(there, as_numpy, partial_restore=True)


def _move_aside(folder: Path, step: int) -> None:
    number = 0
    while (target := folder / f"{DAMAGED}{step}{f'-{number}' if number else ''}").exists():
        number += 1
    (folder / str(step)).rename(target)


def load_params(run_folder: str | PathLike[str]) -> tuple[Run, Any]:
    """(Run, parameter tree as float32 NumPy) of a run's newest checkpoint. Raises ConfigError where
    there is none.
    """
    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax warns of what it opens to read only
    folder = storage.absolute(run_folder)
    try:
        run = build(Run, run_files.read(folder, run_files.CONFIG))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder / run_files.CONFIG}: cannot be read: {error}") from None
    saved = folder / run_files.CHECKPOINTS
    manager = _manager(saved, read_only=True) if saved.is_dir() else None
    newest = _newest(manager, lambda step: _params(manager, step), bit_sums) if manager else None
    if manager is None or newest is None:
        raise ConfigError(f"{folder}: the run has saved no checkpoint yet; train it first")
    manager.close()
    return run, newest[1]["params"]
