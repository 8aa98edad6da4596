"""Run a study: prepare, plan, train what has no result yet, report.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --dry_run

Ctrl-C saves the runs in progress; the same command goes on from there and repeats nothing. Exit code 0: every
run is done; 1: some run failed (the report says which); 2: a setting or input is wrong; 130: interrupted.
"""

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from absl import flags

from blt_jax.config import ConfigError, Study
from blt_jax.data.store import write_json
from blt_jax.record import build, differences, fingerprint, to_dict
from blt_jax.scaling import grid
from blt_jax.train.lease import Lease
from launch import flags as launch_flags
from launch import plan as launch_plan
from launch import status
from launch.engines import local

CONFIG = launch_flags.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)
ENGINE = flags.DEFINE_enum("engine", "local", ["local"], "Where the runs go.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes at a time; 0: one per core, at most 8.")
DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the plan, from assumed patch and token sizes, and stop.")

INTERRUPTED = 130


def record(study: Study, folder):
    """Writes study.json, or checks that the folder belongs to this study."""
    path = Path(folder) / "study.json"
    mine = {"study": to_dict(study), "fingerprint": fingerprint(study)}
    if path.exists():
        theirs = json.loads(path.read_text())
        if theirs["fingerprint"] != mine["fingerprint"]:
            changed = differences(theirs["study"], mine["study"])
            more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
            raise ConfigError(
                f"{folder} holds another study ({'; '.join(changed[:2])}{more}); choose another --workdir"
            )
        return
    if Path(folder).exists() and any(p.name not in ("lease.json",) for p in Path(folder).iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no study; choose another --workdir")
    write_json(path, mine)


def command(folder, run_folder):
    """What a person could paste to make this run; engines only wrap it."""
    return [
        sys.executable,
        "-m",
        "launch.train",
        f"--config={RESOLVED}:{run_folder / 'config.json'}",
        f"--workdir={run_folder}",
        f"--compile_cache={folder / 'compile_cache'}",
    ]


RESOLVED = Path(__file__).parents[1] / "experiments" / "resolved.py"


def job(folder, run_folder, run, cost=None):
    """Writes a run's config.json and cost.json and returns its engine job."""
    run_folder.mkdir(parents=True, exist_ok=True)
    if not (run_folder / "config.json").exists():
        write_json(run_folder / "config.json", to_dict(run))
    if cost is not None:
        write_json(run_folder / "cost.json", cost)
    return local.Job(run.name, command(folder, run_folder), run_folder)


def execute(jobs, workers, flops=None):
    """Runs jobs on the engine; returns (names and reasons of failed runs, whether we were interrupted)."""
    with status.Watch({one.folder: (flops or {}).get(one.name, 1.0) for one in jobs}) as watch:
        result = local.run(jobs, workers, watch=watch.update)
    failed = {o.job.name: o.message for o in result.outcomes if o.state == "failed"}
    return failed, result.interrupted


def prepare(study: Study, folder):
    """All stages before the runs. Returns (facts, plan.json's shared part), or None when interrupted."""
    from launch import prepare as stages  # imports jax: not needed for a dry run or a finished study

    began = time.monotonic()
    store_folder = folder / "store"
    stores, skips = stages.store(study.data, store_folder)
    token_models, told_tokenizer = stages.tokenizers(study, stores, folder)

    entropy = None
    needing = [f.patching for f in study.families.values() if f.patching and f.patching.needs_entropies]
    if needing:
        if len({p.newline_reset for p in needing}) > 1:
            raise ConfigError("families differ in patching.newline_reset: a study keeps one set of entropies")
        weights = study.data.source_weights
        header = stages.indexes(stores, store_folder, "bytes", study.data.row_bytes, weights, fingerprint="bytes")
        run = stages.entropy_run(study.entropy_model, study, header["train"])
        run_folder = folder / stages.ENTROPY_RUN
        failed, stopped = execute([job(folder, run_folder, run)], 1)
        if stopped:
            return None
        if failed:
            raise ConfigError(f"the entropy model failed: {failed[run.name]} (see {run_folder / 'log.txt'})")
        stores = stages.entropies(run_folder, stores, store_folder, needing[0].newline_reset)
        entropy = stages.entropy_facts(study, run, json.loads((run_folder / "result.json").read_text()))

    facts = stages.facts(study, stores, store_folder, token_models)
    write_json(folder / "sample.json", stages.sample(study, facts, stores))
    shared = {
        "tokenizer": told_tokenizer,
        "entropy_model": entropy,
        "corpus": {
            **{split: {"documents": len(one), "text_bytes": one.text_bytes} for split, one in stores.items()},
            "skips": skips,
        },
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("jax", "flax", "optax", "numpy", "blt-jax")},
    }
    print(f"prepared in {time.monotonic() - began:.0f} s", flush=True)
    return facts, shared


def main(_):
    study = build(Study, CONFIG.value.to_dict())
    folder = Path(WORKDIR.value).absolute()
    workers = WORKERS.value or min(8, os.cpu_count() or 1)
    if DRY_RUN.value:
        launch_plan.show(grid.plan(study, grid.assumed_facts(study)))
        return 0

    folder.mkdir(parents=True, exist_ok=True)
    with Lease(folder, what="study"):
        record(study, folder)
        began = time.monotonic()
        prepared = None
        saved = folder / "plan.json"
        if not saved.exists():
            prepared = prepare(study, folder)
            if prepared is None:
                return interrupted(folder)
            facts, shared = prepared
            planned = grid.plan(study, facts)
            for one in planned:
                job(folder, folder / "runs" / one.name, one.run, one.cost)
            keys = ("name", "family", "size")
            runs = [
                {key: getattr(one.run, key) for key in keys}
                | {"seed": one.run.train.seed, "budget": one.run.budget, "cost": one.cost}
                | {"command": command(folder, folder / "runs" / one.name)}
                for one in planned
            ]
            told = {name: to_dict(fact) | {"label": study.families[name].label or name} for name, fact in facts.items()}
            write_json(saved, {"runs": runs, "facts": told, **shared})  # last: from here on the plan stands
            launch_plan.show(planned)
            launch_plan.show_sources(planned)
        plan = json.loads(saved.read_text())
        names = [run["name"] for run in plan["runs"]]
        folders = [folder / "runs" / name for name in names]
        jobs = [local.Job(n, command(folder, f), f) for n, f in zip(names, folders, strict=True)]
        done = sum(one.done for one in jobs)
        print(f"{done} of {len(jobs)} runs are done", flush=True)
        failed = {}
        if done < len(jobs):
            flops = {run["name"]: run["cost"]["train_flops"]["exact"] for run in plan["runs"]}
            failed, stopped = execute(jobs, workers, flops)
            if stopped:
                return interrupted(folder)
        from blt_jax.scaling import report  # plots: not needed before

        page = report.write(folder)
        for name, line in failed.items():
            print(f"failed: {name}: {line}", file=sys.stderr)
        print(f"report: {page}  ({time.monotonic() - began:.0f} s)")
        return 1 if failed else 0


def interrupted(folder):
    print(f"interrupted; every run saved its state: the same command goes on from there ({folder})")
    return INTERRUPTED


if __name__ == "__main__":
    launch_flags.run(main)
