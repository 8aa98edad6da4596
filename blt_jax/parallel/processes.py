"""The processes that train one run together: joining them, their share of a batch, agreeing on a
word.

With one process everything here is a plain local operation. Every process calls each function at
the same point of its program, except where the docstring says otherwise.
"""

import logging
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from blt_jax.config import ConfigError
from blt_jax.parallel import sharding

# seconds without a sign of life after which a process counts as lost and the others are ended
HEARTBEAT = 30
ARRIVAL = 300  # seconds that processes wait for each other at the start
PATIENCE = 3600  # and later, where a process may have a program to compile

log = logging.getLogger(__name__)


def join(coordinator: str = "", count: int = 0, index: int = 0, heartbeat: int = HEARTBEAT) -> None:
    """Joins the run's other processes; call it once, before anything of jax has run.

    `coordinator`: HOST:PORT of process 0, `count` processes, this one is `index`. With `count` 0
    they come from the cluster (Slurm's srun, TPU pods, Open MPI); outside of any, and with `count`
    1, the process stays alone. A process that dies later is noticed within `heartbeat` seconds, and
    jax ends the others (SIGABRT). Raises ConfigError where the processes do not find each other.
    """
    # Its handler of SIGTERM would take the place of ours (`runs/preemption.py`), which also knows
    # other signals.
    jax.config.update("jax_enable_preemption_service", False)
    if count == 1:
        return
    if count and not (coordinator and 0 <= index < count):
        raise ConfigError(
            f"processes = {count}: needs coordinator = HOST:PORT and a process from 0 to "
            f"{count - 1}"
        )
    known: dict[str, Any] = {}
    if count:
        known = dict(coordinator_address=coordinator, num_processes=count, process_id=index)
    try:
        jax.distributed.initialize(
            **known,
            cluster_detection_method="deactivate" if count else None,
            initialization_timeout=ARRIVAL,
            heartbeat_timeout_seconds=heartbeat,
        )
    except ValueError as error:
        if count or "coordinator_address should be defined" not in str(error):
            raise ConfigError(f"processes: {error}") from None
    except RuntimeError as error:  # the runtime's words are many
        raise ConfigError(
            f"process {index} of {count or 'a cluster'} did not meet the others within {ARRIVAL} s "
            f"({coordinator or 'address from the cluster'}): {str(error).splitlines()[0][:200]}"
        ) from None


def share(mesh: jax.sharding.Mesh, rows: int) -> tuple[int, int]:
    """(index, count): this process feeds part `index` of `count` equal parts of a batch of `rows`
    rows.

    Processes that differ only along `tensor` feed the same part. Raises ConfigError where the rows
    do not divide, or where the devices of a process do not lie together.
    """
    devices = sharding.row_devices(mesh)
    if rows % devices:
        raise ConfigError(
            f"train.rows = {rows}: must be a multiple of {devices}, the devices along the batch"
        )
    places = sharding.batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
    # a device's first row and the one after its last
    held = {where[0].indices(rows)[:2] for where in places if where is not None}
    first, size = min(held)[0], sum(last - first for first, last in held)
    if max(held)[1] != first + size or rows % size or first % size:
        raise ConfigError(
            f"mesh {dict(mesh.shape)}: the rows of process {jax.process_index()} do not lie "
            "together"
        )
    return first // size, rows // size


def from_whole(mesh: jax.sharding.Mesh, whole: Any) -> Any:
    """Global arrays of a batch that every process holds whole ({name: [rows, ...]})."""
    by_rows = sharding.batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(whole, by_rows)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, by_rows, lambda where: x[where]), whole
    )


def from_part(mesh: jax.sharding.Mesh, part: Any, rows: int) -> Any:
    """Global arrays of a batch of `rows` rows, from this process's part of it ({name: [its rows,
    ...]}).
    """
    if jax.process_count() == 1:
        return jax.device_put(part, sharding.batch_sharding(mesh))
    by_rows = sharding.batch_sharding(mesh)
    whole = lambda x: jax.make_array_from_process_local_data(by_rows, x, (rows, *x.shape[1:]))
    return jax.tree.map(whole, part)


class Vote:
    """Whether any process says yes; nobody waits for the answer until it is read."""

    def __init__(self, mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(lambda x: x.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._devices = mesh.size

    def cast(self, yes: bool) -> jax.Array:
        """An array that `bool` turns into the answer, the same in every process."""
        own = lambda where: np.full(len(range(*where[0].indices(self._devices))), yes, np.int32)
        return self._any(jax.make_array_from_callback((self._devices,), self._sharding, own))


def everyone(ok: bool) -> bool:
    """Whether `ok` holds in every process; waits for them."""
    if jax.process_count() == 1:
        return ok
    return bool(np.all(multihost_utils.process_allgather(np.int32(ok))))


def wait(name: str) -> None:
    """Returns when every process is here. A name serves once.

    No device takes part: their own meetings give up after half a minute, and compilers differ by
    more than that.
    """
    if jax.process_count() > 1:
        meet = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        meet(key=f"blt_jax {name}", timeout_ms=PATIENCE * 1000)


def first() -> bool:
    """Whether this process is the one that writes for all."""
    return jax.process_index() == 0
