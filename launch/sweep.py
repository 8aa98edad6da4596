"""Run a study: prepare, plan, train what has no result yet, report.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --dry_run
    python -m launch.sweep --workdir=runs/quickstart --status
    python -m launch.sweep --workdir=runs/quickstart --cancel

On a cluster, from any machine that has its clients and the folder; with --dry_run it only writes
what would be submitted, into STUDY/ENGINE. --ENGINE.FIELD sets what the jobs ask for:

    python -m launch.sweep --config=... --workdir=/shared/STUDY --engine=slurm \\
        --slurm.partition=gpu --slurm.gpus=8
    python -m launch.sweep --config=... --workdir=gs://BUCKET/STUDY --engine=gke --gke.cluster=C \\
        --gke.project=P --gke.zone=Z --gke.tpu_type=v5p-64 --gke.image=REGISTRY/blt_jax:tpu
    python -m launch.sweep --config=... --workdir=gs://BUCKET/STUDY --engine=tpu_vm \\
        --tpu_vm.name=N --tpu_vm.zone=Z

Given again, the command submits what is neither done nor failed nor in the queue; --retry_failed
takes the failed ones too (on this machine they are always tried again). Each engine is a file of
blt_jax/engines, whose docstring is its manual.

Ctrl-C saves the runs in progress; the same command goes on from there and repeats nothing. Exit
code 0: every run is done; 1: some run failed (the report says which); 2: a setting or input is
wrong; 130: interrupted.
"""

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from absl import flags

from blt_jax import engines, storage
from blt_jax.config import ConfigError
from blt_jax.record import build, to_dict
from blt_jax.runs import preemption
from blt_jax.storage import write_json
from blt_jax.study import grid, launching, overview
from blt_jax.study.config import Study
from blt_jax.study.folder import job
from blt_jax.study.launching import execute
from launch import flags as launch_flags
from launch import plan as launch_plan

CONFIG = launch_flags.define_config(unless=("status", "cancel"))
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)
ENGINE = flags.DEFINE_enum("engine", engines.DEFAULT, list(engines.ENGINES), "Where the runs go.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes at a time; 0: one per core, at most 8.")
DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Print the plan, from assumed patch and token sizes, and stop."
)
STAGE = flags.DEFINE_enum("stage", "all", ["all", "prepare"], "prepare: stop when there is a plan.")
STATUS = flags.DEFINE_boolean(
    "status", False, "Show the runs (on a terminal until Ctrl-C) and stop."
)
RETRY = flags.DEFINE_boolean("retry_failed", False, "Submit failed runs again too.")
CANCEL = flags.DEFINE_boolean(
    "cancel", False, "Have the runs in progress save, take back the others, and stop."
)
ONCE = ("--dry_run", "--retry_failed")  # flags that a command given again does not repeat


for _engine in engines.ENGINES:
    for _field, _default in engines.named(_engine).settings().items():
        _flag, _help = f"{_engine}.{_field}", f"Of the jobs of --engine={_engine}."
        if isinstance(_default, int):
            flags.DEFINE_integer(_flag, _default, _help)
        else:
            flags.DEFINE_string(_flag, _default, _help)


def engine(name: str) -> engines.Engine:
    """The engine as its flags say. Raises ConfigError."""
    kind = engines.named(name)
    return kind(**{field: flags.FLAGS[f"{name}.{field}"].value for field in kind.settings()})


def prepare(study: Study, folder):
    """All stages before the runs. Returns (facts, plan.json's shared part), or None when
    interrupted.
    """
    from blt_jax.study import prepare as stages  # not needed for a dry run or a finished study

    began = time.monotonic()
    store_folder = folder / "store"
    stores, skips = stages.store(study.data, store_folder)
    token_models, told_tokenizer = stages.tokenizers(study, stores, folder)

    entropy = None
    needing = [
        f.patching for f in study.families.values() if f.patching and f.patching.needs_entropies
    ]
    if needing:
        if len({p.newline_reset for p in needing}) > 1:
            raise ConfigError(
                "families differ in patching.newline_reset: a study keeps one set of entropies"
            )
        weights = study.data.source_weights
        header = stages.indexes(
            stores, store_folder, "bytes", study.data.row_bytes, weights, fingerprint="bytes"
        )
        run = stages.entropy_run(study.entropy_model, study, header["train"])
        run_folder = folder / stages.ENTROPY_RUN
        failed, stopped = execute([job(folder, run_folder, run)], 1)
        if stopped:
            return None
        if failed:
            raise ConfigError(
                f"the entropy model failed: {failed[run.name]} (see {run_folder / 'log.txt'})"
            )
        stores = stages.entropies(run_folder, stores, store_folder, needing[0].newline_reset)
        entropy = stages.entropy_facts(
            study, run, json.loads((run_folder / "result.json").read_text())
        )

    facts = stages.facts(study, stores, store_folder, token_models)
    write_json(folder / "sample.json", stages.sample(study, facts, stores))
    shared = {
        "tokenizer": told_tokenizer,
        "entropy_model": entropy,
        "corpus": {
            **{
                split: {"documents": len(one), "text_bytes": one.text_bytes}
                for split, one in stores.items()
            },
            "skips": skips,
        },
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("jax", "flax", "optax", "numpy", "blt-jax")},
    }
    print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
    return facts, shared


def plan(study, folder):
    """Everything up to plan.json, unless it is there; study.json then lists each run's command.
    False: interrupted.
    """
    saved = folder / "plan.json"
    if saved.exists():
        return True
    prepared = prepare(study, folder)
    if prepared is None:
        return False
    facts, shared = prepared
    planned = grid.plan(study, facts)
    jobs = [job(folder, folder / "runs" / one.name, one.run, one.cost) for one in planned]
    runs = [
        {key: getattr(one.run, key) for key in ("name", "family", "size")}
        | {"seed": one.run.train.seed, "budget": one.run.budget, "cost": one.cost}
        for one in planned
    ]
    manifest = json.loads((folder / "study.json").read_text())
    write_json(
        folder / "study.json",
        manifest | {"runs": [{"name": j.name, "command": j.command} for j in jobs]},
    )
    told = {
        name: to_dict(fact) | {"label": study.families[name].label or name}
        for name, fact in facts.items()
    }
    write_json(saved, {"runs": runs, "facts": told, **shared})  # last: from here on the plan stands
    launch_plan.show(planned)
    launch_plan.show_sources(planned)
    return True


def evaluate(folder: Path) -> None:
    """Makes the evaluations that a study lacks."""
    from blt_jax.study import evaluate as stage  # imports jax

    stage.of_study(folder)


def main(_: list[str]) -> int:
    folder = storage.absolute(WORKDIR.value)
    if STATUS.value:
        return overview.show(folder)
    if CANCEL.value:
        return overview.cancel(folder)
    study = build(Study, CONFIG.value.to_dict())
    chosen = {name: engine(name) for name in engines.ENGINES}[ENGINE.value]  # all are checked
    if STAGE.value == "prepare":
        preemption.leave_when_told()  # the stages up to the entropy model repeat little
        return launching.prepare(study, folder, plan)
    if chosen.kind != "here":
        return launching.give(
            study,
            folder,
            ENGINE.value,
            chosen,
            plan,
            arguments=[word for word in sys.argv[1:] if word.split("=")[0] not in ONCE],
            show=launch_plan.show,
            dry_run=DRY_RUN.value,
            retry_failed=RETRY.value,
        )
    if DRY_RUN.value:
        launch_plan.show(grid.plan(study, grid.assumed_facts(study)))
        return 0
    workers = WORKERS.value or min(8, os.cpu_count() or 1)
    return launching.run_here(study, folder, chosen, plan, workers, evaluate)


if __name__ == "__main__":
    launch_flags.run(main)
