"""Evaluate models: bits per byte of any text by source, language and script, under noise, along
thresholds; tasks.

    python -m launch.evaluate --model=STUDY/runs/A,STUDY/runs/B --input='texts/*.jsonl.gz' \\
        --json=out.json --plots=DIR
    python -m launch.evaluate --model=DIR --input=GLOB --noise=all --thresholds=auto
    python -m launch.evaluate --model=DIR --tasks=hellaswag,mmlu,cute --files=EVALS \\
        --noise=AntSpeak --limit=200
    python -m launch.evaluate --workdir=STUDY

A model is a run folder or a Hugging Face directory. Every byte is scored once, each document by
itself, one longer than the context by windows that overlap by half. Intervals are 90% over
documents drawn anew, the same ones for every model; differences are to the first model that reads
tokens, else to the first.

--noise scores the noised text: bits over the clean text's bytes, which compares noises that change
lengths, and over the noised text's own. With --tasks it noises the prompt, the completion, or both
(--noise_at). --thresholds sets the patch threshold anew: a comma list of nats, or auto. --workdir
takes each family's best run at the largest common budget, and validation text under all noises and
along thresholds, into STUDY/evaluations, which the report shows; with --tasks these, too.

Tasks read local files only (--files) and need `pip install -e '.[eval]'`; --tasks=list names them.
Programs that a model writes (humaneval, mbpp) are run only with --execute, each in a process of its
own with limits.
"""

import json
import os
from pathlib import Path

from absl import flags

from blt_jax import facade
from blt_jax.config import ConfigError
from blt_jax.eval import noise, tasks, texts
from blt_jax.scaling import law_fit
from blt_jax.study import evaluate, evaluation_results, results
from launch import evaluation_tables as tables
from launch import flags as launch_flags

MODEL = flags.DEFINE_list(
    "model", [], "Run folders or Hugging Face directories, with commas between."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a study, to evaluate its families.")
INPUT = flags.DEFINE_string("input", "", "Texts: a glob of .jsonl[.gz|.zst], .parquet or .txt.")
MAX_BYTES = flags.DEFINE_integer(
    "max_bytes", 0, "Text bytes to read at most, spread evenly; 0: all.", lower_bound=0
)
NOISE = flags.DEFINE_list("noise", [], f"Noises, or all: {', '.join(noise.NOISES)}.")
THRESHOLDS = flags.DEFINE_string(
    "thresholds", "", "Patch thresholds in nats, with commas between, or auto."
)
TASKS = flags.DEFINE_list("tasks", [], "Tasks; list: name them.")
FILES = flags.DEFINE_string("files", ".", "Folder of the tasks' files.")
LIMIT = flags.DEFINE_integer(
    "limit", 0, "Documents of a task, spread evenly; 0: all.", lower_bound=0
)
NOISE_AT = flags.DEFINE_list(
    "noise_at", list(noise.WHERE), "Where tasks of choices are noised, each by itself."
)
MAX_NEW_BYTES = flags.DEFINE_integer(
    "max_new_bytes", 0, "Bytes to generate; 0: the task's own.", lower_bound=0
)
EXECUTE = flags.DEFINE_boolean("execute", False, "Run programs that a model writes.")
JSON = flags.DEFINE_string("json", "", "Also write all numbers here.")
PLOTS = flags.DEFINE_string("plots", "", "Also draw pictures into this folder.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of noises.")


def named(folders):
    """{name: Model}: the folder's name, or its path where two have the same."""
    names = [Path(folder).name for folder in folders]
    models = {}
    for folder, name in zip(folders, names, strict=True):
        models[folder if names.count(name) > 1 else name] = facade.load(folder)
    return models


def offline():
    """Tells the libraries of the harness, before they are imported, to fetch nothing and to draw no
    bars.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")


def thresholds_of(text):
    """`auto`, or the numbers of a comma list."""
    if text in ("", evaluate.DIAL):
        return text
    try:
        return sorted(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--thresholds={text}: must be {evaluate.DIAL}, or nats with commas between"
        ) from None


def pictures(found, folder):
    """The figures of evaluations {name: evaluation}, as SVG and PNG in `folder`."""
    from blt_jax.scaling import figures as plots  # matplotlib takes long to import
    from blt_jax.scaling.looks import looks as looks_by_label
    from blt_jax.study import evaluation_figures

    looks, figures = looks_by_label({name: one["label"] for name, one in found.items()}), {}
    for label in texts.LABELS:
        rows = evaluation_results.by_label(found, label)
        if len(rows) > 1:
            figures[label] = evaluation_figures.labels(rows, looks, label)
    noised = evaluation_results.under_noise(found)
    if noised:
        figures["noise"] = evaluation_figures.noises(noised, looks)
    dials = evaluation_results.along_thresholds(found)
    if dials:
        figures["thresholds"] = evaluation_figures.threshold_sweeps(
            dials, looks, evaluation_results.without_threshold(found)
        )
    scores = evaluation_results.on_tasks(found)
    if scores:
        figures["tasks"] = evaluation_figures.tasks(scores, looks)
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
    how = {"execute": EXECUTE.value, "most": MAX_NEW_BYTES.value}
    if WORKDIR.value is not None:
        from blt_jax.study import report

        evaluate.of_study(WORKDIR.value, SEED.value, asked, **how)
        found = evaluation_results.of_study(WORKDIR.value, results.load(WORKDIR.value)[0]["facts"])
        tables.show(found)
        print(f"report: {report.write(WORKDIR.value)}")
        return 0
    if not INPUT.value and not TASKS.value:
        raise ConfigError("nothing to evaluate: give --input=GLOB, --tasks=NAMES or both")
    if JSON.value and not Path(JSON.value).absolute().parent.is_dir():
        raise ConfigError(
            f"--json={JSON.value}: there is no folder {str(Path(JSON.value).parent)!r}"
        )
    thresholds = thresholds_of(THRESHOLDS.value)
    read, skipped = texts.read(INPUT.value, MAX_BYTES.value) if INPUT.value else ((), ())
    for line in skipped:
        print(f"left out: {line}")
    found = {}
    for name, model in named(MODEL.value).items():
        found[name] = evaluate.facts(model, name)
        if read:
            found[name] |= evaluate.of_texts(model, read, noises, thresholds, SEED.value)
        if asked:
            found[name] |= evaluate.of_tasks(model, asked, SEED.value, **how)
    if thresholds and not any("dial" in one for one in found.values()):
        print("no thresholds: entropies cut the patches of none of these models")
    tables.show(found)
    if PLOTS.value:
        print(f"pictures: {PLOTS.value} ({', '.join(pictures(found, PLOTS.value))})")
    if JSON.value:
        told = {
            "input": INPUT.value,
            "seed": SEED.value,
            "models": found,
            "tables": law_fit.as_json(tables.rows(found)),
        }
        Path(JSON.value).write_text(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
