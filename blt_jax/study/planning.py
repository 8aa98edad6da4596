"""A study from its config to its plan, from Python: no flags, nothing printed.

    planned = planning.plan_study(study, folder)
    for run in planned:
        planning.train_here(run.run, folder / "runs" / run.name)
    report.write(folder)

What is there already is not made again. A study's folder belongs to one process at a time: where
another may come, hold its `runs.lease.Lease`, as `launch.sweep` does.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.data.store import Store
from blt_jax.patching.row_starts import document_starts
from blt_jax.record import build, to_dict
from blt_jax.runs import run_files
from blt_jax.runs.config import Run
from blt_jax.storage import write_json
from blt_jax.study import folder as study_folder
from blt_jax.study import grid
from blt_jax.study.config import Study
from blt_jax.study.folder import job, record
from blt_jax.study.grid import FamilyFacts, PlannedRun
from blt_jax.study.progress import SILENT, Progress

# Trains a run in its folder, which holds its config.json, up to result.json. False: it was told to
# stop, and has saved. Raises ConfigError where the run failed.
Trainer = Callable[[Run, Path], bool]


def train_here(run: Run, folder: Path) -> bool:
    """Trains a run in this process, unless it is done; a `Trainer`. Raises ConfigError where the
    run diverges.
    """
    from blt_jax.train.loop import Diverged, train

    folder = storage.at(folder)
    if (folder / run_files.RESULT).exists():
        return True
    try:
        return train(run, folder) is not None
    except Diverged as error:
        raise ConfigError(str(error)) from error


# ---------------------------------------------------------------- stages


def prepare_study(
    study: Study,
    folder: str | os.PathLike[str],
    train_entropy_model: Trainer = train_here,
    progress: Progress = SILENT,
) -> tuple[dict[str, FamilyFacts], dict[str, Any]] | None:
    """All stages before the runs, in `folder`, the study's. Returns (facts by family, the part of
    plan.json that all runs share), or None where the entropy model's run was told to stop.

    Raises ConfigError, in one line, for a corpus, tokenizer or config that cannot be used.
    """
    from blt_jax.study import entropy_stage, prepare  # the stages' libraries take long to import

    began, root = time.monotonic(), storage.at(folder)
    store_folder = root / study_folder.STORE
    stores, skips = prepare.store(study.data, store_folder, progress)
    token_models, tokenizer_record = prepare.tokenizers(study, stores, root, progress)

    entropy_record = None
    patchings = [
        family.patching
        for family in study.families.values()
        if family.patching is not None and family.patching.needs_entropies
    ]
    if patchings:
        if len({patching.newline_reset for patching in patchings}) > 1:
            raise ConfigError(
                "families differ in patching.newline_reset: a study keeps one set of entropies"
            )
        weights = study.data.source_weights
        headers = prepare.indexes(
            stores, store_folder, "bytes", study.data.row_bytes, weights, fingerprint="bytes"
        )
        run = entropy_stage.entropy_run(study.entropy_model, study, headers["train"])
        run_folder = root / entropy_stage.ENTROPY_RUN
        job(root, run_folder, run)  # writes its config.json
        if not train_entropy_model(run, run_folder):
            return None
        stores = entropy_stage.entropies(
            run_folder, stores, store_folder, patchings[0].newline_reset, progress
        )
        result = json.loads((run_folder / run_files.RESULT).read_text())
        entropy_record = entropy_stage.entropy_facts(study, run, result)

    facts = prepare.facts(study, stores, store_folder, token_models, progress)
    write_json(root / study_folder.SAMPLE, sample(study, facts, stores))
    shared = {
        "tokenizer": tokenizer_record,
        "entropy_model": entropy_record,
        "corpus": {
            **{
                split: {"documents": len(store), "text_bytes": store.text_bytes}
                for split, store in stores.items()
            },
            "skips": skips,
        },
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("jax", "flax", "optax", "numpy", "blt-jax")},
    }
    progress.note(f"prepared in {time.monotonic() - began:.0f} s")
    return facts, shared


def plan_study(
    study: Study,
    folder: str | os.PathLike[str],
    train_entropy_model: Trainer = train_here,
    progress: Progress = SILENT,
) -> list[PlannedRun] | None:
    """Everything up to plan.json, unless it is there; study.json then lists each run's command.
    Returns the runs, or None where the entropy model's run was told to stop.

    Raises ConfigError: see `prepare_study`; also where `folder` holds another study.
    """
    root = storage.absolute(folder)
    storage.make_folder(root)
    record(study, root)
    saved = root / study_folder.PLAN
    if saved.exists():
        return grid.plan(study, measured_facts(study, root))
    prepared = prepare_study(study, root, train_entropy_model, progress)
    if prepared is None:
        return None
    facts, shared = prepared
    planned = grid.plan(study, facts)
    jobs = [job(root, root / study_folder.RUNS / run.name, run.run, run.cost) for run in planned]
    runs = [
        {key: getattr(run.run, key) for key in ("name", "family", "size")}
        | {"seed": run.run.train.seed, "budget": run.run.budget, "cost": run.cost}
        for run in planned
    ]
    manifest = json.loads((root / study_folder.STUDY).read_text())
    commands = [{"name": run.name, "command": run.command} for run in jobs]
    write_json(root / study_folder.STUDY, manifest | {"runs": commands})
    labelled = {
        name: to_dict(fact) | {"label": study.families[name].label or name}
        for name, fact in facts.items()
    }
    # last: from here on the plan stands
    write_json(saved, {"runs": runs, "facts": labelled, **shared})
    return planned


def sample(
    study: Study, facts: Mapping[str, FamilyFacts], stores: Mapping[str, Store]
) -> dict[str, Any]:
    """A piece of validation text with its entropies and each family's patches, for the report."""
    store = stores["validation"]
    document = int(np.argmax(store.sizes >= study.sample_bytes + 2))
    begin = max(0, int(store.sizes[document]) // 3)
    text = store.text(document)
    begin = text.rfind(b"\n", 0, begin) + 1
    end = min(len(text), begin + study.sample_bytes)
    entropies = store.entropies(document) if store.entropy_fingerprint else None
    families = {}
    for name, fact in facts.items():
        if fact.patching is not None:
            starts = document_starts(store, document, fact.patching)[begin + 1 : end + 1]
            threshold = fact.patching.threshold if fact.patching.has_threshold else None
            families[name] = {
                "label": study.families[name].label or name,
                "starts": np.flatnonzero(starts).tolist(),
                "threshold": threshold,
            }
    values = [] if entropies is None else entropies[begin:end].astype(float).round(4).tolist()
    return {"text": list(text[begin:end]), "entropies": values, "families": families}


# ---------------------------------------------------------------- a plan that is there


def measured_facts(study: Study, folder: str | os.PathLike[str]) -> dict[str, FamilyFacts]:
    """FamilyFacts that a study's folder has measured. Raises ConfigError where it has not, or is
    another's.
    """
    path = storage.at(folder) / study_folder.PLAN
    where = f"workdir = {str(folder)!r}"
    if not path.exists():
        raise ConfigError(
            f"{where}: holds no plan.json yet; leave --workdir out to plan on assumed sizes"
        )
    saved = json.loads(path.read_text())["facts"]
    missing = sorted(set(study.families) - set(saved))
    if missing:
        raise ConfigError(
            f"{where}: knows nothing of family {missing[0]!r}; is it another study's?"
        )
    return {
        name: build(
            FamilyFacts, {key: value for key, value in saved[name].items() if key != "label"}
        )
        for name in study.families
    }
