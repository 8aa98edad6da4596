"""Run a study: prepare, plan, train what has no result yet, report.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --dry_run
    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart --status

On a Slurm cluster, from any machine that has sbatch and the folder; with --dry_run it only writes STUDY/slurm:

    python -m launch.sweep --config=... --workdir=/shared/STUDY --engine=slurm --slurm.partition=gpu --slurm.gpus=8

--slurm. takes partition account time nodes gpus cpus constraint at_once extra (launch/engines/slurm.py). Given again,
the command submits what is neither done nor failed nor in the queue; --retry_failed takes the failed ones too (on
this machine they are always tried again).

Ctrl-C saves the runs in progress; the same command goes on from there and repeats nothing. Exit code 0: every
run is done; 1: some run failed (the report says which); 2: a setting or input is wrong; 130: interrupted.
"""

import dataclasses
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from absl import flags

from blt_jax.config import ConfigError
from blt_jax.data.store import write_json
from blt_jax.record import build, differences, fingerprint, to_dict
from blt_jax.scaling import grid
from blt_jax.study import Study
from blt_jax.train import lease, preemption
from blt_jax.train.lease import Lease
from launch import flags as launch_flags
from launch import overview, status
from launch import plan as launch_plan
from launch.engines import local, slurm

CONFIG = launch_flags.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study.", required=True)
ENGINE = flags.DEFINE_enum("engine", "local", ["local", "slurm"], "Where the runs go.")
WORKERS = flags.DEFINE_integer("workers", 0, "Processes at a time; 0: one per core, at most 8.")
DRY_RUN = flags.DEFINE_boolean("dry_run", False, "Print the plan, from assumed patch and token sizes, and stop.")
STAGE = flags.DEFINE_enum("stage", "all", ["all", "prepare"], "prepare: stop when there is a plan.")
STATUS = flags.DEFINE_boolean("status", False, "Show the runs (on a terminal until Ctrl-C) and stop.")
RETRY = flags.DEFINE_boolean("retry_failed", False, "Submit failed runs again too.")
CANCEL = flags.DEFINE_boolean("cancel", False, "Have the runs in progress save, take back the others, and stop.")
for _field in dataclasses.fields(slurm.Resources):
    _define = {str: flags.DEFINE_string, int: flags.DEFINE_integer}[_field.type]
    _define(f"slurm.{_field.name}", _field.default, "Of the jobs of --engine=slurm.")

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


def plan(study, folder):
    """Everything up to plan.json, unless it is there; study.json then lists each run's command. False: interrupted."""
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
    write_json(folder / "study.json", manifest | {"runs": [{"name": j.name, "command": j.command} for j in jobs]})
    told = {name: to_dict(fact) | {"label": study.families[name].label or name} for name, fact in facts.items()}
    write_json(saved, {"runs": runs, "facts": told, **shared})  # last: from here on the plan stands
    launch_plan.show(planned)
    launch_plan.show_sources(planned)
    return True


def planned_jobs(folder):
    """(plan.json, its runs' jobs in order), or (None, None) while there is no plan."""
    saved = folder / "plan.json"
    if not saved.exists():
        return None, None
    read = json.loads(saved.read_text())
    return read, jobs_of(folder, [run["name"] for run in read["runs"]])


def jobs_of(folder, names):
    return [local.Job(name, command(folder, folder / "runs" / name), folder / "runs" / name) for name in names]


def on_slurm(study, folder, resources):
    """Submits what is neither done nor failed nor submitted already."""
    folder.mkdir(parents=True, exist_ok=True)
    if not DRY_RUN.value and preparing(folder):
        return 0
    with Lease(folder, what="study"):
        record(study, folder)
        jobs = planned_jobs(folder)[1]
        once = ("--dry_run", "--retry_failed")
        again = [sys.executable, "-m", "launch.sweep", *(a for a in sys.argv[1:] if a.split("=")[0] not in once)]
        report = [sys.executable, "-m", "launch.report", f"--workdir={folder}"]
        if DRY_RUN.value:
            planned = grid.plan(study, grid.assumed_facts(study))  # the names hold, the sizes are assumed
            launch_plan.show(planned)
            jobs = jobs or jobs_of(folder, [one.run.name for one in planned])
        slurm.write(folder, resources, again, report, jobs)
        if DRY_RUN.value:
            print(f"{folder / 'slurm'} holds what would be submitted; the same command without --dry_run submits it")
            return 0
        if jobs is None:
            if not preparing(folder):
                print(f"submitted the preparation as job {slurm.submit(folder, 'prepare')}; it submits the runs")
            return 0
        queued = {one.index: one for one in slurm.queue(folder) if one.part == "runs"}
        missing, failed = [], {}
        for i, one in enumerate(jobs):
            if one.done or i in queued or lease.holder(one.folder):
                continue
            word, message = status.last_words(one.folder / "log.txt")
            if word == "failed" and not RETRY.value:
                failed[one.name] = message
                continue
            if word == "failed":
                with open(one.folder / "log.txt", "a") as log:
                    log.write(status.mark("queued", "again"))
            missing.append(i)
        print(f"{sum(one.done for one in jobs)} of {len(jobs)} runs are done, {len(queued)} in the queue")
        after = sorted({one.job for one in queued.values()})
        if missing:
            after.append(slurm.submit_runs(folder, missing, resources.at_once))
            print(f"submitted runs {slurm.spans(missing)} as job {after[-1]}")
        waiting = [one.job for one in slurm.queue(folder) if one.part == "report" and not one.running]
        if missing or (after and not waiting):
            print(f"submitted the report as job {slurm.submit_report(folder, after)}")
        if not after:
            return finish(folder, time.monotonic(), failed)
    return 0


def preparing(folder):
    """Whether the preparation is queued or running; says so."""
    if (folder / "plan.json").exists():
        return False
    found = [one for one in slurm.queue(folder) if one.part == "prepare"]
    for one in found:
        state = "running" if one.running else f"queued ({one.reason})"
        print(f"the preparation is {state}, job {one.job}; it submits the runs; --status shows them")
    return bool(found)


def main(_):
    study = build(Study, CONFIG.value.to_dict())
    folder = Path(WORKDIR.value).absolute()
    asked = {one.name: flags.FLAGS[f"slurm.{one.name}"].value for one in dataclasses.fields(slurm.Resources)}
    resources = slurm.Resources(**asked)
    alone = STAGE.value == "prepare"
    if STATUS.value:
        return overview.show(folder)
    if CANCEL.value:
        return overview.cancel(folder)
    if ENGINE.value == "slurm" and not alone:
        return on_slurm(study, folder, resources)
    if DRY_RUN.value:
        launch_plan.show(grid.plan(study, grid.assumed_facts(study)))
        return 0
    if alone:
        preemption.leave_when_told()  # the stages up to the entropy model repeat little

    folder.mkdir(parents=True, exist_ok=True)
    with Lease(folder, what="study"):
        record(study, folder)
        began = time.monotonic()
        if not plan(study, folder):
            return preemption.SAVED_EXIT_CODE if alone else interrupted(folder)
        if alone:
            return 0
        planned, jobs = planned_jobs(folder)
        done = sum(one.done for one in jobs)
        print(f"{done} of {len(jobs)} runs are done", flush=True)
        failed = {}
        if done < len(jobs):
            flops = {run["name"]: run["cost"]["train_flops"]["exact"] for run in planned["runs"]}
            workers = WORKERS.value or min(8, os.cpu_count() or 1)
            failed, stopped = execute(jobs, workers, flops)
            if stopped:
                return interrupted(folder)
        return finish(folder, began, failed, study.noise_bytes)


def finish(folder, began, failed, noise_bytes=0):
    """The report, and the word of those runs (name: why) that have no result. Returns the exit code.

    With `noise_bytes`, the evaluation of each family's best run comes first, where it is not there yet.
    """
    from blt_jax.scaling import curves, evaluations, report  # plots: not needed before

    if noise_bytes and evaluations.missing(folder, curves.load(folder)[1], noise_bytes):
        from launch import evaluate  # imports jax

        evaluate.of_study(folder)
    page = report.write(folder)
    for name in failed:
        print(f"failed: {name}: {failed[name]}", file=sys.stderr)
    print(f"report: {page}  ({time.monotonic() - began:.0f} s)")
    return 1 if failed else 0


def interrupted(folder):
    print(f"interrupted; every run saved its state: the same command goes on from there ({folder})")
    return INTERRUPTED


if __name__ == "__main__":
    launch_flags.run(main)
