"""What a study needs before its runs: store, tokenizer, entropy model, entropies, thresholds, row
indexes.

Each stage writes one thing of its own, atomically, and is skipped when that thing is there: a study
that was killed goes on where it was.
"""

import dataclasses
import functools
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from blt_jax import storage
from blt_jax.config import ConfigError, Tokenizer
from blt_jax.data import bpe, pack, shuffle
from blt_jax.data.parts import WHOLE
from blt_jax.data.shuffle import SPLITS
from blt_jax.data.store import EntropyParts, Store
from blt_jax.flops import analytic
from blt_jax.patching import calibrate
from blt_jax.patching.row_starts import document_starts, read_document
from blt_jax.record import build, fingerprint, to_dict
from blt_jax.runs import run_files
from blt_jax.runs.config import Run
from blt_jax.storage import replacing, write_json
from blt_jax.study.config import EntropyModel, Study
from blt_jax.study.folder import ENTROPY_MODEL
from blt_jax.study.grid import FamilyFacts, tokenizer_file
from launch import progress_bar

ENTROPY_RUN = ENTROPY_MODEL


def say(text):
    print(text, flush=True)


def read(data, folder, piece=WHOLE):
    """Stage 1 of a store: `piece`'s share of the input files (`data/shuffle.py`)."""
    with progress_bar.Bytes("read") as tell:
        shuffle.read(data, folder, piece, tell)


def sort(data, folder, piece=WHOLE):
    """Stage 2 of a store: `piece`'s share of the hashes."""
    with progress_bar.Bytes("sort") as tell:
        shuffle.sort(data, folder, piece, tell)


def store(data, folder):
    """Documents of both splits in `folder`. Returns {split: Store} and the notes on what was
    skipped.
    """
    read(data, folder)
    sort(data, folder)
    return merge(data, folder)


def merge(data, folder, piece=WHOLE):
    """Stage 3 of a store, what is left of `store`. `piece.of`: in what to name a piece whose parts
    are missing.
    """
    skipped = shuffle.merge(data, folder, piece)
    stores = {split: Store(folder, split) for split in SPLITS}
    for split, one in stores.items():
        say(f"{split}: {len(one):,} documents, {one.text_bytes:,} text bytes")
    for line in skipped:
        say(f"skipped: {line}")
    return stores, skipped


def tokenizer(config: Tokenizer, stores, path):
    """The tokenizer.json `path`: trained on the training split, or a copy of the one given."""
    path = storage.at(path)
    if not path.exists():
        storage.make_folder(path.parent)
        if config.path:
            bpe.Bpe(config.path)  # refuses what it cannot use
            with replacing(path) as temporary:
                temporary.write_bytes(storage.at(config.path).read_bytes())
        else:
            train = stores["train"]
            bpe.train((train.text(i) for i in range(len(train))), config.vocab, path)
    made = bpe.Bpe(path)
    validation = stores["validation"]
    tokens = sum(len(made.encode(validation.text(i))) - 2 for i in range(len(validation)))
    say(
        f"tokenizer: {made.vocab:,} entries, {validation.text_bytes / tokens:.3f} bytes per token "
        "on validation"
    )
    return made, validation.text_bytes / tokens


def tokenizers(study: Study, stores, folder):
    """The `bpe.Bpe` of each family of token models, and what plan.json tells of the one tokenizer
    of a study.

    With several tokenizers that is None: each family's facts tell its own bytes per token.
    """
    made = {}  # by path: families without a tokenizer of their own share the study's
    of_family = {}
    for name, family in study.families.items():
        if getattr(next(iter(family.sizes.values())).model, "unit", "") == "token":
            path = tokenizer_file(study, name)
            if path not in made:
                made[path] = tokenizer(
                    family.tokenizer or study.tokenizer, stores, storage.at(folder) / path
                )
            of_family[name] = made[path][0]
    if len(made) != 1:
        return of_family, None
    ((one, per_token),) = made.values()
    return of_family, {"vocab": one.vocab, "bytes_per_token": per_token}


def indexes(stores, folder, name, positions, weights=None, **how):
    """Row indexes of both splits under `folder`/rows/`name`; validation gets the patch budget of
    training.

    `weights` by source are for training: validation is every document once.
    """
    headers, patches = {}, 0
    for split in SPLITS:
        out = storage.at(folder) / "rows" / name / split
        made = how | {"weights": weights if split == "train" else None}
        if "starts_of" in how:
            made["starts_of"] = functools.partial(how["starts_of"], stores[split])
        headers[split] = pack.build_index(
            stores[split], out, positions=positions, patches=patches, **made
        )
        patches = headers[split]["row_patches"]
    return headers


def entropy_run(entropy_model: EntropyModel, study: Study, header):
    """The Run that trains the entropy model: same program, same training split."""
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


def entropies(run_folder, stores, folder, newline_reset=False):
    """Writes the entropies of both splits beside their bytes, by the model of `run_folder`."""
    score(run_folder, stores, newline_reset)
    return merge_entropies(run_folder, stores, folder, newline_reset)


def score(run_folder, stores, newline_reset=False, piece=WHOLE, rows=0, meter=None):
    """Makes `piece`'s share of the parts of both splits' entropies; `rows`, `meter`: see
    `eval.entropy_scoring.score`.

    A process that is killed repeats the part it was at, and the one it was writing: each 16 MiB of
    ids, 1/256 of a larger store, or one document if that is larger. Raises ConfigError for a folder
    without a finished byte LM.
    """
    import jax  # of all stages only this one computes: the others, in many pieces, start without

    from blt_jax.eval import entropy_scoring
    from blt_jax.runs.checkpoint import load_params

    model, mark = _entropy_model(run_folder, newline_reset)
    entropy_scoring.shape(model, jax.local_devices())  # refuses what it cannot use
    params = None
    for split, one in stores.items():
        full = fingerprint(mark, one.fingerprint)
        if one.entropy_fingerprint == full:
            continue
        parts = EntropyParts(one, full)
        missing = sorted(set(parts.missing()) & set(piece.share(len(parts.ranges))))
        if not missing:
            continue
        params = load_params(run_folder)[1] if params is None else params
        ranges = [parts.ranges[part] for part in missing]
        say(f"entropies of {sum(int(one.sizes[a:b].sum()) for a, b in ranges):,} bytes ({split})")
        how = dict(ranges=ranges, rows=rows, newline_reset=newline_reset, meter=meter)
        with progress_bar.Bytes(f"entropies ({split})") as tell, ThreadPoolExecutor(1) as writer:
            scored, written = (
                entropy_scoring.score(params, model, one.sizes + 2, one.ids, tell=tell, **how),
                None,
            )
            for part, (first, end) in zip(missing, ranges, strict=True):
                values = list(itertools.islice(scored, end - first))
                if written is not None:
                    written.result()
                written = writer.submit(
                    parts.write, part, values
                )  # while the next part is computed
            written.result()


def merge_entropies(run_folder, stores, folder, newline_reset=False, piece=WHOLE):
    """Puts the entropies that `score` made in their place. Returns {split: Store}.

    Raises ConfigError: a part is missing.
    """
    mark = _entropy_model(run_folder, newline_reset)[1]
    for one in stores.values():
        full = fingerprint(mark, one.fingerprint)
        if one.entropy_fingerprint != full:
            parts = EntropyParts(one, full)
            piece.need(parts.missing(), len(parts.ranges), one.folder, "entropies")
            parts.merge()
    return {split: Store(folder, split) for split in stores}


def _entropy_model(run_folder, newline_reset):
    """(model config, fingerprint of what the model of a finished run says)."""
    found = []
    for name in (run_files.CONFIG, run_files.RESULT):
        try:
            found.append(run_files.read(run_folder, name))
        except (OSError, json.JSONDecodeError):
            raise ConfigError(
                f"{run_folder}: no entropy model that has finished training ({name})"
            ) from None
    model = build(Run, found[0]).model
    return model, fingerprint(model, found[1]["validation"], newline_reset)


def calibrated(family, patching, one, path, weights=None) -> calibrate.Calibration:
    """The family's calibration on the training split, kept as file `path`; made anew when anything
    it says changed.
    """
    path, weights = storage.at(path), weights or {}
    marks = {
        "corpus": one.fingerprint,
        "entropy_model": one.entropy_fingerprint if patching.needs_entropies else "",
    }
    if path.exists():
        try:
            saved = calibrate.load(path, **marks)
            asked = (
                dataclasses.replace(saved.patching, threshold=patching.threshold)
                if saved.target
                else saved.patching
            )
            if (asked, saved.weights) == (patching, weights):
                return saved
            why = "its patching or the weights of the sources changed"
        except ConfigError as error:
            why, _, _ = str(error).rpartition("; ")  # without the mend: this is it
        say(f"{family}: calibrated anew: {why}")
    documents = (
        (*read_document(one, i, patching), one.source_names[one.source_of[i]])
        for i in range(len(one))
    )
    found = calibrate.calibrate(documents, patching, weights=weights, **marks)
    storage.make_folder(path.parent)
    write_json(path, calibrate.record(found))
    return found


def facts(study: Study, stores, folder, token_models) -> dict[str, FamilyFacts]:
    """Measured facts of each family: its calibrated patching, its row indexes, bytes per unit.

    `token_models`: the `bpe.Bpe` of each family of token models.
    """
    found, weights = {}, study.data.source_weights
    for name, family in study.families.items():
        model = next(iter(family.sizes.values())).model
        patching, record = None, ""
        if family.patching is not None:
            record = f"calibration/{name}.json"
            patching = calibrated(
                name, family.patching, stores["train"], storage.at(folder) / record, weights
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
            unit = headers["train"]["text_bytes_per_patch"]
            word = f"{unit:.3f} bytes per patch"
        elif model.unit == "token":
            token_model = token_models[name]
            for size, entry in family.sizes.items():
                if entry.model.vocab != token_model.vocab:
                    raise ConfigError(
                        f"families.{name}.sizes.{size}.model.vocab = {entry.model.vocab}: the "
                        "tokenizer has "
                        f"{token_model.vocab} entries; make them equal"
                    )
            train = stores["train"]
            sample = range(min(len(train), 200))
            tokens = sum(len(token_model.encode(train.text(i))) for i in sample)
            per_token = sum(len(train.text(i)) for i in sample) / tokens
            positions = max(2, round(study.data.row_bytes / per_token))
            mark = token_model.fingerprint
            headers = indexes(
                stores, folder, name, positions, weights, tokenizer=token_model, fingerprint=mark
            )
            unit = headers["train"]["text_bytes_per_token"]
            word = f"{unit:.3f} bytes per token"
        else:
            headers = indexes(
                stores, folder, name, study.data.row_bytes, weights, fingerprint="bytes"
            )
            unit, word = 1.0, "bytes"
        train = headers["train"]
        say(
            f"{name}: {word}, {train['rows']:,} rows, waste {train['byte_waste']:.2%} of positions"
            + (f", {train['patch_waste']:.2%} of patches" if patching else "")
        )
        found[name] = FamilyFacts(
            bytes_per_unit=unit,
            row_positions=train["row_positions"],
            row_text_bytes=train["row_text_bytes"],
            index=f"rows/{name}/train",
            validation_index=f"rows/{name}/validation",
            patching=patching,
            measured=True,
            row_patches=train["row_patches"],
            calibration=record,
            sources={
                source: {"share": one["share"], "readings": one["readings"]}
                for source, one in train["sources"].items()
            },
            pass_bytes=train["text_bytes"],
        )
    return found


def sample(study: Study, found, stores):
    """A piece of validation text with its entropies and each family's patches, for the report."""
    one = stores["validation"]
    document = int(np.argmax(one.sizes >= study.sample_bytes + 2))
    begin = max(0, int(one.sizes[document]) // 3)
    text = one.text(document)
    begin = text.rfind(b"\n", 0, begin) + 1
    end = min(len(text), begin + study.sample_bytes)
    measured = one.entropies(document) if one.entropy_fingerprint else None
    families = {}
    for name, fact in found.items():
        if fact.patching is not None:
            starts = document_starts(one, document, fact.patching)[begin + 1 : end + 1]
            threshold = fact.patching.threshold if fact.patching.needs_entropies else None
            families[name] = {
                "label": study.families[name].label or name,
                "starts": np.flatnonzero(starts).tolist(),
                "threshold": threshold,
            }
    values = [] if measured is None else measured[begin:end].astype(float).round(4).tolist()
    return {"text": list(text[begin:end]), "entropies": values, "families": families}


def entropy_facts(study: Study, run: Run, result):
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
