"""The entropy model of a study: the run that trains it, the entropies it measures, its costs.

Each stage writes one thing of its own, atomically, and is skipped when that thing is there.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.data.parts import WHOLE, Piece
from blt_jax.data.store import EntropyParts, Store
from blt_jax.families import Model
from blt_jax.flops import analytic
from blt_jax.record import build, fingerprint, to_dict
from blt_jax.runs import run_files
from blt_jax.runs.config import Run
from blt_jax.study.config import EntropyModel, Study
from blt_jax.study.progress import SILENT, Progress

ENTROPY_RUN = "entropy_model"

Folder = str | os.PathLike[str]


def entropy_run(entropy_model: EntropyModel, study: Study, header: Mapping[str, Any]) -> Run:
    """The Run that trains the entropy model: same program, same training split.

    `header`: of the training split's byte rows (`data.pack.build_index`).
    """
    steps = max(1, round(entropy_model.bytes / (entropy_model.rows * header["row_text_bytes"])))
    warmup = min(study.optimizer.warmup_steps, round(study.warmup_fraction * steps))
    return Run(
        name=ENTROPY_RUN,
        family=ENTROPY_RUN,
        size="only",
        model=entropy_model.size.model,
        store="../store",
        index="../store/rows/bytes/train",
        validation_index="../store/rows/bytes/validation",
        optimizer=dataclasses.replace(
            study.optimizer, learning_rate=entropy_model.size.learning_rate, warmup_steps=warmup
        ),
        train=dataclasses.replace(
            study.train,
            steps=steps,
            rows=entropy_model.rows,
            checkpoint_every=-(-steps // study.checkpoints_per_run),
            seed=study.seeds[0],
        ),
        mesh=study.mesh,
        data_seed=study.data.seed,
    )


def entropies(
    run_folder: Folder,
    stores: Mapping[str, Store],
    folder: Folder,
    newline_reset: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Store]:
    """Writes the entropies of both splits beside their bytes, by the model of `run_folder`."""
    score(run_folder, stores, newline_reset, progress=progress)
    return merge_entropies(run_folder, stores, folder, newline_reset)


def score(
    run_folder: Folder,
    stores: Mapping[str, Store],
    newline_reset: bool = False,
    piece: Piece = WHOLE,
    rows: int = 0,
    meter: Any = None,
    progress: Progress = SILENT,
) -> None:
    """Makes `piece`'s share of the parts of both splits' entropies; `rows`, `meter`: see
    `eval.entropy_scoring.score`.

    A process that is killed repeats the part it was at, and the one it was writing: each 16 MiB of
    ids, 1/256 of a larger store, or one document if that is larger. Raises ConfigError for a folder
    without a finished byte LM.
    """
    import jax  # of all stages only this one computes: the others, in many pieces, start without

    from blt_jax.eval import entropy_scoring
    from blt_jax.runs.checkpoint import load_params

    model, model_fingerprint = _finished_model(run_folder, newline_reset)
    entropy_scoring.shape(model, jax.local_devices())  # refuses what it cannot use
    params = None
    for split, store in stores.items():
        wanted = fingerprint(model_fingerprint, store.fingerprint)
        if store.entropy_fingerprint == wanted:
            continue
        parts = EntropyParts(store, wanted)
        missing = sorted(set(parts.missing()) & set(piece.share(len(parts.ranges))))
        if not missing:
            continue
        params = load_params(run_folder)[1] if params is None else params
        ranges = [parts.ranges[part] for part in missing]
        size = sum(int(store.sizes[first:end].sum()) for first, end in ranges)
        progress.note(f"entropies of {size:,} bytes ({split})")
        options = dict(ranges=ranges, rows=rows, newline_reset=newline_reset, meter=meter)
        tell = progress.task(f"entropies ({split})")
        with ThreadPoolExecutor(1) as writer:
            scored = entropy_scoring.score(
                params, model, store.sizes + 2, store.ids, progress=tell, **options
            )
            writing = None  # while the next part is computed
            for part, (first, end) in zip(missing, ranges, strict=True):
                values = list(itertools.islice(scored, end - first))
                if writing is not None:
                    writing.result()
                writing = writer.submit(parts.write, part, values)
            if writing is not None:
                writing.result()


def merge_entropies(
    run_folder: Folder,
    stores: Mapping[str, Store],
    folder: Folder,
    newline_reset: bool = False,
    piece: Piece = WHOLE,
) -> dict[str, Store]:
    """Puts the entropies that `score` made in their place. Returns {split: Store}.

    Raises ConfigError where a part is missing; `piece.of`: in what to name whose it is.
    """
    model_fingerprint = _finished_model(run_folder, newline_reset)[1]
    for store in stores.values():
        wanted = fingerprint(model_fingerprint, store.fingerprint)
        if store.entropy_fingerprint != wanted:
            parts = EntropyParts(store, wanted)
            piece.need(parts.missing(), len(parts.ranges), store.folder, "entropies")
            parts.merge()
    return {split: Store(folder, split) for split in stores}


def _finished_model(run_folder: Folder, newline_reset: bool) -> tuple[Model, str]:
    """(config, fingerprint of the entropies) of the model of a finished run. Raises ConfigError."""
    records = []
    for name in (run_files.CONFIG, run_files.RESULT):
        try:
            records.append(json.loads((storage.at(run_folder) / name).read_text()))
        except (OSError, json.JSONDecodeError):
            raise ConfigError(
                f"{run_folder}: no entropy model that has finished training ({name})"
            ) from None
    config, result = records
    model = build(Run, config).model
    return model, fingerprint(model, result["validation"], newline_reset)


def entropy_facts(study: Study, run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """The entropy model's own costs, in both conventions: a line of its own in every report."""
    conventions = ("paper", "exact")
    forward = {
        name: analytic.per_byte(
            run.model, patch_size=1.0, context_bytes=study.data.row_bytes, convention=name
        ).total
        for name in conventions
    }
    return {
        "bpb": result["validation"]["bpb"],
        "parameters": analytic.parameters(run.model)["total"],
        "forward_flops_per_byte": forward,
        "train_bytes": result["text_bytes"],
        "train_flops": {name: 3 * forward[name] * result["text_bytes"] for name in conventions},
        "model": to_dict(run.model),
    }
