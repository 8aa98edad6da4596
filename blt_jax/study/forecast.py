"""What a planned run asks of a machine that need not be there: mesh, memory per device and hours by
arithmetic on the plan; or its step, by the compiler.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blt_jax.config import ConfigError
from blt_jax.flops import executed, hardware, memory
from blt_jax.record import fingerprint
from blt_jax.study.grid import PlannedRun

if TYPE_CHECKING:
    import jax

    from blt_jax.train.aot import Program

# Backend of self-attention on each maker's devices (`nn.attention.backend_of`; a test holds the two
# together).
ATTENTION = {"tpu": "splash", "gpu": "banded"}
# of the FLOPs that hours stand on: MFU as usually reported (`flops.hardware.mfu`)
CONVENTION = "exact"
ROOM = 0.9  # of a device's memory, at most, so that a plan holds


@dataclasses.dataclass(frozen=True)
class Machine:
    """Devices of one kind and the share of their dense bfloat16 peak that training is expected to
    reach.
    """

    device: hardware.Device
    devices: int
    mfu: float

    @property
    def platform(self) -> str:
        return "tpu" if self.device.name.startswith("tpu") else "gpu"


def forecast(planned: PlannedRun, machine: Machine) -> dict[str, Any]:
    """JSON values: mesh, memory (bytes by line), fits, hours, device_hours, entropy_model_hours.

    Hours are training FLOPs in `exact` / (devices x peak x MFU); scoring the training bytes with
    the entropy model is a line of its own at the same MFU. Raises ConfigError where the run's mesh,
    or the rows of its batch, do not fit so many devices.
    """
    run, fact = planned.run, planned.fact
    mesh = run.mesh.sizes(machine.devices)
    at_a_time = mesh[0] * mesh[1] * max(1, run.train.device_rows)
    if run.train.rows % at_a_time:
        raise ConfigError(
            f"{planned.name}: train.rows = {run.train.rows} is no multiple of {at_a_time}, what "
            f"{machine.devices} devices take at a time; name fewer devices, or change train.rows "
            "or train.device_rows"
        )
    used = memory.per_device(
        run.model,
        run.train,
        mesh,
        positions=fact.row_positions,
        slots=fact.row_patches,
        head_positions=min(fact.row_positions, max(1, executed.HEAD_LOGITS // run.model.vocab)),
        attention=ATTENTION[machine.platform],
        tables=run.optimizer.tables,
    )
    rate = machine.devices * machine.device.peaks["bfloat16"] * machine.mfu * 3600
    hours = planned.cost["train_flops"][CONVENTION] / rate
    return {
        "mesh": dict(zip(("data", "fsdp", "tensor"), mesh, strict=True)),
        "memory": used.as_dict(),
        "fits": used.total <= machine.device.hbm_bytes,
        "hours": hours,
        "device_hours": hours * machine.devices,
        "entropy_model_hours": planned.cost["entropy_model_flops"][CONVENTION] / rate,
    }


def fewest_devices(planned: PlannedRun, machine: Machine, most: int = 2**14) -> int | None:
    """The fewest devices, a power of two, whose memory holds the run with a tenth to spare; None up
    to `most`.
    """
    for count in (2**power for power in range(most.bit_length())):
        try:
            ahead = forecast(planned, dataclasses.replace(machine, devices=count))
        except ConfigError:  # its mesh or its rows ask for another number
            continue
        if ahead["memory"]["total"] <= ROOM * machine.device.hbm_bytes:
            return count
    return None


# ---------------------------------------------------------------- compiled steps


def programs(planned: Sequence[PlannedRun]) -> list[PlannedRun]:
    """One run of each distinct training step: budgets and seeds share theirs."""
    distinct: dict[str, PlannedRun] = {}
    for run in planned:
        config, fact = run.run, run.fact
        train = dataclasses.replace(config.train, steps=1, seed=0, checkpoint_every=1)
        key = fingerprint(config.model, train, config.mesh, [fact.row_positions, fact.row_patches])
        distinct.setdefault(key, run)
    return list(distinct.values())


def compile_step(planned: PlannedRun, devices: "Sequence[jax.Device]") -> "Program":
    """The step of a run in bfloat16, for `devices` (`parallel.topology.devices`). Raises
    ConfigError where it does not fit them.
    """
    from blt_jax.parallel.mesh import make_mesh  # jax: only now that its devices are chosen
    from blt_jax.train import aot

    run, fact = planned.run, planned.fact
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, dtype="bfloat16"))
    return aot.compile_step(run, make_mesh(run.mesh, devices), fact.row_positions, fact.row_patches)


def compiled_record(program: "Program", topology: str, real: bool) -> dict[str, Any]:
    """JSON values. `real`: compiled by the TPU's own compiler, not for forced host devices."""
    compiler = "tpu" if real else "host"
    return dataclasses.asdict(program) | {"topology": topology, "compiler": compiler}
