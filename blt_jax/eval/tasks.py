"""Tasks on local files: how their records become prompts, choices, answers and programs.

Prompts are those of the language-model evaluation harness and of the sets' own papers; few-shot
examples are written into them here, so that noise can reach all of a prompt. Nothing is fetched.
Fields of a record, by file:

    hellaswag                      activity_label context choices label (number of the right choice)
    piqa; arc_easy, arc_challenge  goal; question    choices label
    mmlu, mmlu_fewshot_dev         subject question choices label
    g2p_*                          grapheme phonemes
    cute, cute_prompts.json        task inputs label; {task: template with {} for each input}
    translation_*                  text: {language: sentence}
    humaneval; mbpp, mbpp_fewshot  prompt test entry_point; text code test_list test_setup_code
"""

import dataclasses
import difflib
import functools
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.eval import noise

CHOICES, EXACT, PROGRAM, TRANSLATION = "choices", "exact", "program", "translation"
ENDINGS = (".jsonl", ".jsonl.gz")
LETTERS = "ABCDEFGHIJ"


@dataclasses.dataclass(frozen=True)
class Task:
    """`files`: stems, the scored one first. `make(records of each file)` gives documents, dicts
    with `prompt` and

    choices, label    (kind "choices": the likeliest continuation, after a space)
    answer            (kinds "exact" and "translation": the text generated up to `stop`)
    head, tail        (kind "program": head + generated + tail runs without an error)
    """

    kind: str
    files: tuple[str, ...]
    make: Callable
    stop: tuple[str, ...] = ("\n",)
    most: int = 256  # bytes to generate


# ---------------------------------------------------------------- by likelihood


def _hellaswag(rows):
    return [_question(r, f"{r['activity_label']}: {r['context']}") for r in rows]


def _piqa(rows):
    return [_question(r, f"Question: {r['goal']}\nAnswer:") for r in rows]


def _arc(rows):
    return [_question(r, f"Question: {r['question']}\nAnswer:") for r in rows]


def _question(row, prompt):
    return {"prompt": prompt, "choices": [c.strip() for c in row["choices"]], "label": row["label"]}


def _mmlu(rows, examples):
    """Five examples of the subject; the choices are letters."""
    shown = {}
    for row in examples:
        shown.setdefault(row["subject"], []).append(f"{_lettered(row)} {LETTERS[row['label']]}\n\n")
    questions = []
    for row in rows:
        about = row["subject"].replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        prompt = head + "".join(shown.get(row["subject"], [])[:5]) + _lettered(row)
        questions.append(
            {
                "prompt": prompt,
                "choices": list(LETTERS[: len(row["choices"])]),
                "label": row["label"],
            }
        )
    return questions


def _lettered(row):
    options = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=False)
    )
    return f"{row['question'].strip()}\n{options}Answer:"


# ---------------------------------------------------------------- by what is generated


def _cute(name):
    """The set's own templates of four examples, and what opens the answer: a base model closes the
    quotation.
    """

    def make(rows, prompts):
        template = prompts[0][name.removesuffix("_rand")]
        own = [row for row in rows if row["task"] == name]
        return [
            {"prompt": f'{template.format(*r["inputs"])} Answer: "', "answer": r["label"]}
            for r in own
        ]

    return make


CUTE = (
    "contains_char contains_word del_char del_word ins_char ins_word orth sem spell spell_inverse "
    "sub_char sub_word swap_char swap_word contains_char_rand del_char_rand ins_char_rand "
    "spell_rand spell_inverse_rand sub_char_rand swap_char_rand"
).split()


def _phonemes(rows, examples=None):
    """Five examples: the first of `examples`, or of the set itself, which are then not scored."""
    shown, rows = (examples[:5], rows) if examples else (rows[:5], rows[5:])
    head = "".join(f"Word: {r['grapheme']}\nPhonemes: {r['phonemes']}\n\n" for r in shown)
    pairs = [(f"{head}Word: {r['grapheme']}\nPhonemes:", r["phonemes"]) for r in rows]
    return [{"prompt": prompt, "answer": answer} for prompt, answer in pairs]


def _translation(source, target):
    """Three examples: the first of the set with both languages, which are then not scored."""

    def make(rows):
        both = [r["text"] for r in rows if source in r["text"] and target in r["text"]]
        pair = lambda text: f"{source}: {text[source]}\n{target}:"
        head = "".join(f"{pair(text)} {text[target]}\n\n" for text in both[:3])
        return [{"prompt": head + pair(text), "answer": text[target]} for text in both[3:]]

    return make


NTREX = (
    "amh arb ben bos deu guj hau hin hye isl ita kan kat kaz khm kir mal som swa tha urd vie zul"
).split()
FLORES = "km ne ps si".split()


def _humaneval(rows):
    return [
        {
            "prompt": r["prompt"],
            "head": r["prompt"],
            "tail": f"\n{r['test']}\ncheck({r['entry_point']})\n",
        }
        for r in rows
    ]


def _mbpp(rows, examples):
    """Three examples, tasks 2 to 4 of the set, as published."""

    def ask(row):
        tests = "\n".join(row["test_list"])
        return f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"  # noqa: E501

    head = "".join(f"{ask(r)}{r['code'].replace(chr(13), '')}\n[DONE]\n\n" for r in examples[1:4])
    tail = lambda r: "\n" + "\n".join([r["test_setup_code"], *r["test_list"]]) + "\n"
    return [{"prompt": head + ask(r), "head": "", "tail": tail(r)} for r in rows]


TASKS = {
    "hellaswag": Task(CHOICES, ("hellaswag",), _hellaswag),
    "piqa": Task(CHOICES, ("piqa",), _piqa),
    "arc_easy": Task(CHOICES, ("arc_easy",), _arc),
    "arc_challenge": Task(CHOICES, ("arc_challenge",), _arc),
    "mmlu": Task(CHOICES, ("mmlu", "mmlu_fewshot_dev"), _mmlu),
    "g2p_phonologybench": Task(EXACT, ("g2p_phonologybench",), _phonemes, most=128),
    "g2p_cmudict": Task(EXACT, ("g2p_cmudict", "g2p_cmudict_train"), _phonemes, most=128),
    "humaneval": Task(
        PROGRAM, ("humaneval",), _humaneval, ("\nclass", "\ndef", "\n#", "\nif", "\nprint"), 1024
    ),
    "mbpp": Task(PROGRAM, ("mbpp", "mbpp_fewshot"), _mbpp, ("[DONE]",), 1024),
}
TASKS |= {
    f"cute_{name}": Task(EXACT, ("cute", "cute_prompts"), _cute(name), ('"', "\n")) for name in CUTE
}
for _file, _english, _languages in (
    ("translation_ntrex", "eng", NTREX),
    ("translation_flores_v1", "en", FLORES),
):
    for _language in _languages:
        for _pair in ((_language, _english), (_english, _language)):
            TASKS[f"{_file}_{'_'.join(_pair)}"] = Task(
                TRANSLATION, (_file,), _translation(*_pair), most=1024
            )
GROUPS = ("cute", "translation_ntrex", "translation_flores_v1")


def chosen(names: Sequence[str]) -> list[str]:
    """The tasks of a list of names, groups resolved. Raises ConfigError with the nearest known
    name.
    """
    resolved = []
    for name in names:
        if name in GROUPS:
            resolved += [task for task in TASKS if task.startswith(f"{name}_")]
        elif name in TASKS:
            resolved.append(name)
        else:
            near = difflib.get_close_matches(name, [*TASKS, *GROUPS], 1)
            raise ConfigError(
                f"--tasks={name}: "
                + (f"did you mean {near[0]!r}?" if near else "--tasks=list names all")
            )
    return list(dict.fromkeys(resolved))


# ---------------------------------------------------------------- files


def documents(name: str, folder: str | Path, limit: int = 0) -> list[dict[str, Any]]:
    """Documents of task `name` from the files in `folder`, `limit` of them spread evenly; 0: all.

    Raises ConfigError for a missing or damaged file, a record without its fields, and a question
    without choices.
    """
    task = TASKS[name]
    files = [_records(folder, stem) for stem in task.files]
    try:
        docs = task.make(*(rows for _, rows in files))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        why = f"no field {error}" if isinstance(error, KeyError) else error
        raise ConfigError(f"{files[0][0]}: is not what task {name} reads: {why}") from None
    if not docs:
        raise ConfigError(f"{files[0][0]}: has nothing for task {name}")
    for number, doc in enumerate(docs):
        if task.kind == CHOICES and not (
            all(doc["choices"]) and 0 <= doc["label"] < len(doc["choices"])
        ):
            what = f"choices {doc['choices']}, label {doc['label']}"
            raise ConfigError(
                f"{files[0][0]}: question {number + 1} has {what}: it needs texts, and one of "
                "them right"
            )
    if limit and limit < len(docs):
        docs = [docs[i] for i in np.linspace(0, len(docs) - 1, limit).round().astype(int)]
    return docs


def _records(folder, stem):
    """(path, records) of STEM.jsonl[.gz], or of STEM.json as one."""
    for path in [Path(folder) / f"{stem}{ending}" for ending in (*ENDINGS, ".json")]:
        if path.exists():
            return path, _read(path, path.stat().st_mtime_ns)
    raise ConfigError(
        f"{Path(folder) / stem}{ENDINGS[0]}[.gz]: no such file; --files=DIR names the folder of "
        "tasks"
    )


@functools.lru_cache(maxsize=2)  # tasks of a group share their file
def _read(path, _):
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read()
        if path.suffix == ".json":
            return [json.loads(data)]
        return [json.loads(line) for line in data.splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON lines: {error}") from None


def requested(
    names: Sequence[str],
    folder: str | Path,
    limit: int = 0,
    noises: Sequence[str] = (),
    at: Sequence[str] = noise.WHERE,
    seed: int = 0,
) -> dict[str, tuple[Task, list[dict[str, Any]]]]:
    """{label: (Task, documents)} of tasks clean, `NAME`, and under each noise, `NAME NOISE PLACE`.

    Choices are noised in the prompt, in the "completion", or in "both"; of what a model writes only
    the prompt is: the answer is compared with the clean text. Raises ConfigError, as `chosen` and
    `documents` do.
    """
    labelled = {}
    for name in chosen(names):
        clean = labelled[name] = (TASKS[name], documents(name, folder, limit))
        for noise_name in noises:
            for place in at if clean[0].kind == CHOICES else ("prompt",):
                noised = [_noised(document, noise_name, place, seed) for document in clean[1]]
                labelled[f"{name} {noise_name} {place}"] = (clean[0], noised)
    return labelled


def allowed(requested: dict[str, tuple[Task, list[dict[str, Any]]]], execute: bool) -> None:
    """Raises ConfigError where `requested` has tasks that run what a model writes, and `execute`
    does not say so.
    """
    written = [label for label, (task, _) in requested.items() if task.kind == PROGRAM]
    if written and not execute:
        raise ConfigError(
            f"{', '.join(written)}: runs programs that the model writes; --execute allows it, "
            "with limits"
        )


def _noised(document, name, place, seed):
    noised = dict(document)
    apply = lambda text: noise.noised(text.encode(), name, seed).decode()
    if place in ("prompt", "both"):
        noised["prompt"] = apply(document["prompt"])
    if place in ("completion", "both"):
        noised["choices"] = [apply(choice) for choice in document["choices"]]
    return noised


def averaged(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """{"tasks", "places"}: `scores` of `harness.run`, those under a noise in several places as
    their mean `NAME NOISE`.

    The mean is each document's; "places" keeps what it is of.
    """
    of_noise: dict[str, list[str]] = {}
    for label in scores:
        name, _, place = label.rpartition(" ")
        if place in noise.WHERE:
            of_noise.setdefault(name, []).append(label)
    places: dict[str, Any] = {}
    averages = dict(scores)
    for name, labels in of_noise.items():
        if len(labels) > 1:
            by_place = [averages.pop(label)["documents"] for label in labels]
            places |= {label: scores[label] for label in labels}
            mean = {
                metric: np.mean([columns[metric] for columns in by_place], axis=0).tolist()
                for metric in by_place[0]
            }
            averages[name] = {"documents": mean}
    return {"tasks": averages, "places": places}
