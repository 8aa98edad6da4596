"""The real training steps of a plan, compiled for a machine that need not be there."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blt_jax.record import fingerprint
from blt_jax.study.grid import PlannedRun

if TYPE_CHECKING:
    import jax

    from blt_jax.train.aot import Program


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


def record(program: "Program", topology: str, real: bool) -> dict[str, Any]:
    """JSON values. `real`: compiled by the TPU's own compiler, not for forced host devices."""
    compiler = "tpu" if real else "host"
    return dataclasses.asdict(program) | {"topology": topology, "compiler": compiler}
