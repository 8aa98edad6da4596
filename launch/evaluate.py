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
from typing import Any

from absl import flags
from rich.console import Console

from blt_jax.config import ConfigError
from blt_jax.eval import noise, tasks, texts
from blt_jax.scaling import law_fit
from blt_jax.study import evaluate, evaluation_results, evaluation_tables, results
from launch import flags as launch_flags
from launch import progress_bar

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


def offline() -> None:
    """Tells the libraries of the harness, before they are imported, to fetch nothing and to draw no
    bars.
    """
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")


def show(evaluations: evaluation_tables.Evaluations) -> None:
    """Prints the tables of {name: evaluation}."""
    console = Console(width=None if Console().is_terminal else 200)
    for table in evaluation_tables.tables(evaluations):
        console.print(table)
    console.print(evaluation_tables.NOTE)


def main(_: list[str]) -> int:
    if TASKS.value == ["list"]:
        print(*tasks.TASKS, *tasks.GROUPS, sep="\n")
        return 0
    if (WORKDIR.value is None) == (not MODEL.value):
        raise ConfigError("give one of --workdir=STUDY and --model=DIR[,DIR], and not both")
    noises = noise.chosen(NOISE.value)
    for place in NOISE_AT.value:
        if place not in noise.WHERE:
            raise ConfigError(f"--noise_at={place}: known are {', '.join(noise.WHERE)}")
    requested = tasks.requested(
        TASKS.value, FILES.value, LIMIT.value, noises, NOISE_AT.value, SEED.value
    )
    tasks.allowed(requested, EXECUTE.value)
    if requested:
        offline()
        # before minutes are spent: it may not be installed
        from blt_jax.eval import harness  # noqa: F401
    options = {"execute": EXECUTE.value, "most": MAX_NEW_BYTES.value}
    if WORKDIR.value is not None:
        return of_study(WORKDIR.value, requested, options)
    if not INPUT.value and not TASKS.value:
        raise ConfigError("nothing to evaluate: give --input=GLOB, --tasks=NAMES or both")
    if JSON.value and not Path(JSON.value).absolute().parent.is_dir():
        raise ConfigError(
            f"--json={JSON.value}: there is no folder {str(Path(JSON.value).parent)!r}"
        )
    return of_models(MODEL.value, noises, requested, options)


def of_study(workdir: str, requested: dict[str, Any], options: dict[str, Any]) -> int:
    from blt_jax.study import report

    with progress_bar.Printed() as progress:
        evaluate.of_study(workdir, SEED.value, requested, progress, **options)
    show(evaluation_results.of_study(workdir, results.load(workdir)[0]["facts"]))
    print(f"report: {report.write(workdir)}")
    return 0


def of_models(
    folders: list[str], noises: list[str], requested: dict[str, Any], options: dict[str, Any]
) -> int:
    thresholds = evaluate.parse_thresholds(THRESHOLDS.value)
    documents, skipped = texts.read(INPUT.value, MAX_BYTES.value) if INPUT.value else ((), ())
    for line in skipped:
        print(f"left out: {line}")
    evaluations = {}
    with progress_bar.Printed() as progress:
        for name, model in evaluate.load_all(folders).items():
            parts = evaluate.facts(model, name)
            if documents:
                parts |= evaluate.of_texts(
                    model, documents, noises, thresholds, SEED.value, progress
                )
            if requested:
                parts |= evaluate.of_tasks(model, requested, SEED.value, progress, **options)
            evaluations[name] = parts
    if thresholds and not any("dial" in parts for parts in evaluations.values()):
        print("no thresholds: entropies cut the patches of none of these models")
    show(evaluations)
    if PLOTS.value:
        pictures = evaluate.write_pictures(evaluations, Path(PLOTS.value))
        print(f"pictures: {PLOTS.value} ({', '.join(pictures)})")
    if JSON.value:
        written = {
            "input": INPUT.value,
            "seed": SEED.value,
            "models": evaluations,
            "tables": law_fit.as_json(evaluation_tables.rows(evaluations)),
        }
        Path(JSON.value).write_text(json.dumps(written, indent=1))
    return 0


if __name__ == "__main__":
    launch_flags.run(main)
