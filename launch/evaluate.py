"""Evaluate models: bits per byte of any text by source, language and script, under noise, along thresholds; tasks.

    python -m launch.evaluate --model=STUDY/runs/A,STUDY/runs/B --input='texts/*.jsonl.gz' --json=out.json --plots=DIR
    python -m launch.evaluate --model=DIR --input=GLOB --noise=all --thresholds=auto
    python -m launch.evaluate --model=DIR --tasks=hellaswag,mmlu,cute --files=EVALS --noise=AntSpeak --limit=200
    python -m launch.evaluate --workdir=STUDY

A model is a run folder or a Hugging Face directory. Every byte is scored once, each document by itself, one longer
than the context by windows that overlap by half. Intervals are 90% over documents drawn anew, the same ones for every
model; differences are to the first model that reads tokens, else to the first.

--noise scores the noised text: bits over the clean text's bytes, which compares noises that change lengths, and over
the noised text's own. With --tasks it noises the prompt, the completion, or both (--noise_at). --thresholds sets the
patch threshold anew: a comma list of nats, or auto. --workdir takes each family's best run at the largest common
budget, and validation text under all noises and along thresholds, into STUDY/evaluations, which the report
shows; with --tasks these, too.

Tasks read local files only (--files) and need `pip install -e '.[eval]'`; --tasks=list names them. Programs that a
model writes (humaneval, mbpp) are run only with --execute, each in a process of its own with limits.
"""

import json
import os
from pathlib import Path

from absl import flags

from blt_jax import facade, storage
from blt_jax.config import ConfigError
from blt_jax.data.store import Store
from blt_jax.eval import noise, tasks, texts
from blt_jax.flops import analytic
from blt_jax.record import build
from blt_jax.scaling import curves, evaluation_plots, evaluations, fit, plots
from blt_jax.storage import write_json
from blt_jax.study import Study
from launch import evaluation_tables as tables
from launch import flags as launch_flags
from launch import progress

PIECE = 2048  # bytes at least of a validation document that a study's evaluation reads, so that it reads many
DIAL = "auto"
BROKEN = "".join(map(chr, range(0xDC80, 0xDD00)))  # what a cut leaves of a character, as surrogates


def facts(model, label):
    """What an evaluation says of its model."""
    told = {"format": evaluations.FORMAT, "label": label, "model": str(model.folder), "unit": texts.unit(model)}
    told |= {"parameters": analytic.parameters(model.config)["non_embedding"], "context": model.context}
    return told | {"threshold": model.patching.threshold if model.patching and model.patching.needs_entropies else None}


def of_texts(model, found, noises=(), thresholds=(), seed=0):
    """The parts "texts", "noise" and "dial" of an evaluation of `found`, a list of texts.Text."""
    data, made = [one.data for one in found], {}
    label = model.folder.name
    with progress.Bytes(label) as tell:
        if noises:
            made["noise"] = texts.robustness(model, data, noises, seed, tell)
            columns = made["noise"]["clean"]
        else:
            columns = texts.measure(model, data, tell)
    made["texts"] = (
        columns
        | {"lines": [texts.lines(one) for one in data]}
        | {name: [one.labels[name] for one in found] for name in texts.LABELS}
    )
    made["flops_per_byte"] = texts.flops_per_byte(model, columns)
    if thresholds and made["flops_per_byte"]["entropy_model"]:
        if thresholds == DIAL:
            thresholds = texts.thresholds(model, data)
        with progress.Bytes(f"{label}, thresholds") as tell:
            made["dial"] = texts.dial(model, data, thresholds, tell)
    return made


def of_tasks(model, asked):
    """The parts "tasks" and "places" of an evaluation. `asked`: see `eval.tasks.asked`."""
    from blt_jax.eval import harness

    with progress.Bytes(f"{model.folder.name}, tasks") as tell:
        how = dict(execute=EXECUTE.value, most=MAX_NEW_BYTES.value, seed=SEED.value, tell=tell)
        return tasks.averaged(harness.run(model, asked, **how))


# ---------------------------------------------------------------- a study


def validation(folder, most):
    """The beginnings of validation documents, of about equal length, `most` bytes in all, as texts.Text."""
    store, found, size = Store(folder / "store", "validation"), [], 0
    piece = min(most, max(PIECE, most // len(store)))
    for i in range(len(store)):
        text, source = store.document(i)
        text = text[:piece].decode("utf-8", "surrogateescape").rstrip(BROKEN)
        data = text.encode("utf-8", "surrogateescape")
        if data and size + len(data) <= most:
            labels = {"source": source, "lang": "", "script": texts.script_of(data)}
            found.append(texts.Text(data, labels))
            size += len(data)
    if not found:
        raise ConfigError(f"{folder / 'store'}: no validation text within noise_bytes = {most:,}")
    return found


def of_study(folder, seed=0, asked=None):
    """Makes STUDY/evaluations/FAMILY.json where it is not there, or of another run or text; adds `asked` tasks.

    Raises ConfigError for a study without runs, or whose config leaves nothing to read.
    """
    folder = storage.at(folder)
    plan, points, _ = curves.load(folder)
    most = build(Study, curves.read_json(folder / "study.json")["study"]).noise_bytes
    if not most:
        raise ConfigError(f"{folder}: its config says noise_bytes = 0, which leaves nothing to read")
    missing = evaluations.missing(folder, points, most, seed)
    found = validation(folder, most) if missing else ()
    for family, (point, wanted) in evaluations.wanted(points, most, seed).items():
        if family not in missing and not asked:
            continue
        model, path = facade.load(point.folder), folder / evaluations.FOLDER / f"{family}.json"
        if family in missing:
            told = facts(model, plan["facts"][family]["label"]) | {"family": family, "asked": wanted}
            told |= of_texts(model, found, list(noise.NOISES), DIAL, seed)
        else:
            told = evaluations.load(path)
        if asked:
            made = of_tasks(model, asked)
            told |= {part: told.get(part, {}) | made[part] for part in made}
        storage.make_folder(path.parent)
        write_json(path, told)


# ---------------------------------------------------------------- models given by name


def named(folders):
    """{name: Model}: the folder's name, or its path where two have the same."""
    names = [Path(folder).name for folder in folders]
    models = {}
    for folder, name in zip(folders, names, strict=True):
        models[folder if names.count(name) > 1 else name] = facade.load(folder)
    return models


def offline():
    """Tells the libraries of the harness, before they are imported, to fetch nothing and to draw no bars."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")


def thresholds_of(text):
    """`auto`, or the numbers of a comma list."""
    if text in ("", DIAL):
        return text
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--thresholds={text}: must be {DIAL}, or nats with commas between") from None


def pictures(found, folder):
    """The figures of evaluations {name: evaluation}, as SVG and PNG in `folder`."""
    looks, figures = plots.looks({name: one["label"] for name, one in found.items()}), {}
    for label in texts.LABELS:
        rows = evaluations.by_label(found, label)
        if len(rows) > 1:
            figures[label] = evaluation_plots.labels(rows, looks, label)
    noised = evaluations.under_noise(found)
    if noised:
        figures["noise"] = evaluation_plots.noises(noised, looks)
    dials = evaluations.along_thresholds(found)
    if dials:
        figures["thresholds"] = evaluation_plots.dials(dials, looks, evaluations.beside_dials(found))
    scores = evaluations.on_tasks(found)
    if scores:
        figures["tasks"] = evaluation_plots.tasks(scores, looks)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for kind, data in plots.encoded(figure).items():
            (folder / f"{name}.{kind}").write_bytes(data)
    return list(figures)


def main(_):
    if TASKS.value == ["list"]:
        print(*tasks.TASKS, *tasks.GROUPS, sep="\n")
        return 0
    if (WORKDIR.value is None) == (not MODEL.value):
        raise ConfigError("give one of --workdir=STUDY and --model=DIR[,DIR], and not both")
    noises = noise.chosen(NOISE.value)
    for place in NOISE_AT.value:
        if place not in noise.WHERE:
            raise ConfigError(f"--noise_at={place}: known are {', '.join(noise.WHERE)}")
    asked = tasks.asked(TASKS.value, FILES.value, LIMIT.value, noises, NOISE_AT.value, SEED.value)
    tasks.allowed(asked, EXECUTE.value)
    if asked:
        offline()
        from blt_jax.eval import harness  # noqa: F401  before minutes are spent: it may not be installed
    if WORKDIR.value is not None:
        from blt_jax.scaling import report

        of_study(WORKDIR.value, SEED.value, asked)
        found = evaluations.of_study(WORKDIR.value, curves.load(WORKDIR.value)[0]["facts"])
        tables.show(found)
        print(f"report: {report.write(WORKDIR.value)}")
        return 0
    if not INPUT.value and not TASKS.value:
        raise ConfigError("nothing to evaluate: give --input=GLOB, --tasks=NAMES or both")
    if JSON.value and not Path(JSON.value).absolute().parent.is_dir():
        raise ConfigError(f"--json={JSON.value}: there is no folder {str(Path(JSON.value).parent)!r}")
    thresholds = thresholds_of(THRESHOLDS.value)
    read, skipped = texts.read(INPUT.value, MAX_BYTES.value) if INPUT.value else ((), ())
    for line in skipped:
        print(f"left out: {line}")
    found = {}
    for name, model in named(MODEL.value).items():
        found[name] = facts(model, name)
        if read:
            found[name] |= of_texts(model, read, noises, thresholds, SEED.value)
        if asked:
            found[name] |= of_tasks(model, asked)
    if thresholds and not any("dial" in one for one in found.values()):
        print("no thresholds: entropies cut the patches of none of these models")
    tables.show(found)
    if PLOTS.value:
        print(f"pictures: {PLOTS.value} ({', '.join(pictures(found, PLOTS.value))})")
    if JSON.value:
        told = {"input": INPUT.value, "seed": SEED.value, "models": found, "tables": fit.as_json(tables.rows(found))}
        Path(JSON.value).write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    MODEL = flags.DEFINE_list("model", [], "Run folders or Hugging Face directories, with commas between.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a study, to evaluate its families.")
    INPUT = flags.DEFINE_string("input", "", "Texts: a glob of .jsonl[.gz|.zst], .parquet or .txt.")
    MAX_BYTES = flags.DEFINE_integer("max_bytes", 0, "Text bytes to read at most; 0: all.", lower_bound=0)
    NOISE = flags.DEFINE_list("noise", [], f"Noises, or all: {', '.join(noise.NOISES)}.")
    THRESHOLDS = flags.DEFINE_string("thresholds", "", "Patch thresholds in nats, with commas between, or auto.")
    TASKS = flags.DEFINE_list("tasks", [], "Tasks; list: name them.")
    FILES = flags.DEFINE_string("files", ".", "Folder of the tasks' files.")
    LIMIT = flags.DEFINE_integer("limit", 0, "Documents of a task, spread evenly; 0: all.", lower_bound=0)
    NOISE_AT = flags.DEFINE_list("noise_at", list(noise.WHERE), "Where tasks of choices are noised, each by itself.")
    MAX_NEW_BYTES = flags.DEFINE_integer("max_new_bytes", 0, "Bytes to generate; 0: the task's own.", lower_bound=0)
    EXECUTE = flags.DEFINE_boolean("execute", False, "Run programs that a model writes.")
    JSON = flags.DEFINE_string("json", "", "Also write all numbers here.")
    PLOTS = flags.DEFINE_string("plots", "", "Also draw pictures into this folder.")
    SEED = flags.DEFINE_integer("seed", 0, "Seed of noises.")
    launch_flags.run(main)
