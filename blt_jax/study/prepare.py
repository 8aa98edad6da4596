"""What a study needs before its runs: store, tokenizers, thresholds, row indexes.

Each stage writes one thing of its own, atomically, and is skipped when that thing is there: a study
that was killed goes on where it was. The entropy model is in `entropy_stage.py`; `planning.py` puts
the stages together.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

from blt_jax import storage
from blt_jax.config import ConfigError, Data, Tokenizer
from blt_jax.data import bpe, pack, shuffle
from blt_jax.data.parts import WHOLE, Piece
from blt_jax.data.shuffle import SPLITS
from blt_jax.data.store import Store
from blt_jax.patching import Patching, calibrate
from blt_jax.patching.row_starts import document_starts, read_document
from blt_jax.record import fingerprint
from blt_jax.storage import replacing, write_json
from blt_jax.study.config import Family, Study
from blt_jax.study.grid import FamilyFacts, model_of, tokenizer_file
from blt_jax.study.progress import SILENT, Progress

Folder = str | os.PathLike[str]
TOKENIZER_SAMPLE = 200  # documents that the length of token rows is measured on


# ---------------------------------------------------------------- store


def read(data: Data, folder: Folder, piece: Piece = WHOLE, progress: Progress = SILENT) -> None:
    """Stage 1 of a store: `piece`'s share of the input files (`data/shuffle.py`)."""
    shuffle.read(data, folder, piece, progress.task("read"))


def sort(data: Data, folder: Folder, piece: Piece = WHOLE, progress: Progress = SILENT) -> None:
    """Stage 2 of a store: `piece`'s share of the hashes."""
    shuffle.sort(data, folder, piece, progress.task("sort"))


def merge(
    data: Data, folder: Folder, piece: Piece = WHOLE, progress: Progress = SILENT
) -> tuple[dict[str, Store], list[str]]:
    """Stage 3 of a store, what is left of `store`. `piece.of`: in what to name a piece whose parts
    are missing.
    """
    skipped = shuffle.merge(data, folder, piece)
    stores = {split: Store(folder, split) for split in SPLITS}
    for split, store in stores.items():
        progress.note(f"{split}: {len(store):,} documents, {store.text_bytes:,} text bytes")
    for line in skipped:
        progress.note(f"skipped: {line}")
    return stores, skipped


def store(
    data: Data, folder: Folder, progress: Progress = SILENT
) -> tuple[dict[str, Store], list[str]]:
    """Documents of both splits in `folder`. Returns {split: Store} and the notes on what was
    skipped.
    """
    read(data, folder, progress=progress)
    sort(data, folder, progress=progress)
    return merge(data, folder, progress=progress)


# ---------------------------------------------------------------- tokenizers


def tokenizer(
    config: Tokenizer, stores: Mapping[str, Store], path: Folder, progress: Progress = SILENT
) -> tuple[bpe.Bpe, float]:
    """The tokenizer.json `path`, trained on the training split or a copy of the one given, and its
    bytes per token on validation.
    """
    file = storage.at(path)
    if not file.exists():
        storage.make_folder(file.parent)
        if config.path:
            bpe.Bpe(config.path)  # refuses what it cannot use
            with replacing(file) as temporary:
                temporary.write_bytes(storage.at(config.path).read_bytes())
        else:
            train = stores["train"]
            bpe.train((train.text(i) for i in range(len(train))), config.vocab, file)
    tokens = bpe.Bpe(file)
    validation = stores["validation"]
    count = sum(len(tokens.encode(validation.text(i))) - 2 for i in range(len(validation)))
    bytes_per_token = validation.text_bytes / count
    progress.note(
        f"tokenizer: {tokens.vocab:,} entries, {bytes_per_token:.3f} bytes per token on validation"
    )
    return tokens, bytes_per_token


def tokenizers(
    study: Study, stores: Mapping[str, Store], folder: Folder, progress: Progress = SILENT
) -> tuple[dict[str, bpe.Bpe], dict[str, Any] | None]:
    """The `bpe.Bpe` of each family of token models, and what plan.json says of the one tokenizer of
    a study.

    With several tokenizers that is None: each family's facts say its own bytes per token.
    """
    by_path: dict[str, tuple[bpe.Bpe, float]] = {}  # families without their own share the study's
    of_family = {}
    for name, family in study.families.items():
        if model_of(family).reads == "token":
            path = tokenizer_file(study, name)
            if path not in by_path:
                by_path[path] = tokenizer(
                    family.tokenizer or study.tokenizer,
                    stores,
                    storage.at(folder) / path,
                    progress,
                )
            of_family[name] = by_path[path][0]
    if len(by_path) != 1:
        return of_family, None
    ((tokens, bytes_per_token),) = by_path.values()
    return of_family, {"vocab": tokens.vocab, "bytes_per_token": bytes_per_token}


# ---------------------------------------------------------------- rows


def indexes(
    stores: Mapping[str, Store],
    folder: Folder,
    name: str,
    positions: int,
    weights: Mapping[str, float] | None = None,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Row indexes of both splits under `folder`/rows/`name`; returns their headers. Validation gets
    the patch budget of training.

    `weights` by source are for training: validation is every document once. `options`: of
    `pack.build_index`; `starts_of` takes (store, document).
    """
    headers: dict[str, dict[str, Any]] = {}
    patches = 0
    for split in SPLITS:
        out = storage.at(folder) / "rows" / name / split
        of_split = options | {"weights": weights if split == "train" else None}
        if "starts_of" in options:
            of_split["starts_of"] = functools.partial(options["starts_of"], stores[split])
        headers[split] = pack.build_index(
            stores[split], out, positions=positions, patches=patches, **of_split
        )
        patches = headers[split]["row_patches"]
    return headers


def calibrated(
    family: str,
    patching: Patching,
    store: Store,
    path: Folder,
    weights: Mapping[str, float] | None = None,
    progress: Progress = SILENT,
) -> calibrate.Calibration:
    """The family's calibration on the training split, kept as file `path`; made anew when anything
    it says changed.
    """
    file, weights = storage.at(path), dict(weights or {})
    of = {
        "corpus": store.fingerprint,
        "entropy_model": store.entropy_fingerprint if patching.needs_entropies else "",
    }
    if file.exists():
        try:
            saved = calibrate.load(file, **of)
            before = (
                dataclasses.replace(saved.patching, threshold=patching.threshold)
                if saved.target
                else saved.patching
            )
            if (before, saved.weights) == (patching, weights):
                return saved
            why = "its patching or the weights of the sources changed"
        except ConfigError as error:
            why, _, _ = str(error).rpartition("; ")  # without the mend: this is it
        progress.note(f"{family}: calibrated anew: {why}")
    documents = (
        (*read_document(store, i, patching), store.source_names[store.source_of[i]])
        for i in range(len(store))
    )
    calibration = calibrate.calibrate(documents, patching, weights=weights, **of)
    storage.make_folder(file.parent)
    write_json(file, calibrate.record(calibration))
    return calibration


# ---------------------------------------------------------------- facts


def facts(
    study: Study,
    stores: Mapping[str, Store],
    folder: Folder,
    token_models: Mapping[str, bpe.Bpe],
    progress: Progress = SILENT,
) -> dict[str, FamilyFacts]:
    """Measured facts of each family: its calibrated patching, its row indexes, bytes per unit.

    `folder`: of the store; `token_models`: the `bpe.Bpe` of each family that reads tokens. Raises
    ConfigError where a model's vocabulary is not its tokenizer's.
    """
    measured, weights = {}, study.data.source_weights
    for name, family in study.families.items():
        patching, record = None, ""
        if family.patching is not None:
            record = f"calibration/{name}.json"
            path = storage.at(folder) / record
            patching = calibrated(
                name, family.patching, stores["train"], path, weights, progress
            ).patching
            mark = fingerprint(
                patching, stores["train"].entropy_fingerprint if patching.needs_entropies else ""
            )
            headers = indexes(
                stores,
                folder,
                name,
                study.data.row_bytes,
                weights,
                starts_of=functools.partial(document_starts, patching=patching),
                fingerprint=mark,
            )
            bytes_per_unit = headers["train"]["text_bytes_per_patch"]
            reads = f"{bytes_per_unit:.3f} bytes per patch"
        elif model_of(family).reads == "token":
            tokens = token_models[name]
            _check_vocabulary(name, family, tokens)
            headers = indexes(
                stores,
                folder,
                name,
                _token_positions(study, stores["train"], tokens),
                weights,
                tokenizer=tokens,
                fingerprint=tokens.fingerprint,
            )
            bytes_per_unit = headers["train"]["text_bytes_per_token"]
            reads = f"{bytes_per_unit:.3f} bytes per token"
        else:
            headers = indexes(
                stores, folder, name, study.data.row_bytes, weights, fingerprint="bytes"
            )
            bytes_per_unit, reads = 1.0, "bytes"
        train = headers["train"]
        progress.note(
            f"{name}: {reads}, {train['rows']:,} rows, waste {train['byte_waste']:.2%} of positions"
            + (f", {train['patch_waste']:.2%} of patches" if patching else "")
        )
        measured[name] = FamilyFacts(
            bytes_per_unit=bytes_per_unit,
            row_positions=train["row_positions"],
            row_text_bytes=train["row_text_bytes"],
            index=f"rows/{name}/train",
            validation_index=f"rows/{name}/validation",
            patching=patching,
            measured=True,
            row_patches=train["row_patches"],
            calibration=record,
            sources={
                source: {"share": read["share"], "readings": read["readings"]}
                for source, read in train["sources"].items()
            },
            pass_bytes=train["text_bytes"],
        )
    return measured


def _check_vocabulary(name: str, family: Family, tokens: bpe.Bpe) -> None:
    for size, entry in family.sizes.items():
        if entry.model.vocab != tokens.vocab:
            raise ConfigError(
                f"families.{name}.sizes.{size}.model.vocab = {entry.model.vocab}: the tokenizer "
                f"has {tokens.vocab} entries; make them equal"
            )


def _token_positions(study: Study, train: Store, tokens: bpe.Bpe) -> int:
    """Tokens of a row that hold about as much text as a row of bytes."""
    sample = range(min(len(train), TOKENIZER_SAMPLE))
    count = sum(len(tokens.encode(train.text(i))) for i in sample)
    bytes_per_token = sum(len(train.text(i)) for i in sample) / count
    return max(2, round(study.data.row_bytes / bytes_per_token))
