"""Tasks from local files: prompts, few-shot examples, noise in its places, refusals; programs in a
fence.
"""

import gzip
import json
from pathlib import Path

import pytest

from blt_jax.config import ConfigError
from blt_jax.eval import noise, programs, tasks

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "evals"


def write(folder, name, rows):
    data = "\n".join(json.dumps(row) for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    asked = {"question": "Why?", "choices": ["so ", "not so", "perhaps"], "label": 2}
    write(folder, "arc_easy.jsonl", [asked | {"id": str(i)} for i in range(9)])
    examples = [asked | {"subject": "old_maths", "question": f"Q{i}", "label": 0} for i in range(7)]
    write(
        folder,
        "mmlu_fewshot_dev.jsonl",
        [*examples, asked | {"subject": "law", "question": "other"}],
    )
    write(folder, "mmlu.jsonl.gz", [asked | {"subject": "old_maths", "question": " Q "}])
    write(
        folder,
        "g2p_phonologybench.jsonl",
        [{"grapheme": f"w{i}", "phonemes": f"f {i}"} for i in range(8)],
    )
    write(
        folder,
        "translation_ntrex.jsonl",
        [{"text": {"eng": f"e{i}", "deu": f"d{i}"}} for i in range(5)],
    )
    write(folder, "cute.jsonl", [{"task": "spell_rand", "inputs": ["abc"], "label": "a b c"}])
    write(folder, "cute_prompts.json", [{"spell": 'Spell "{}".'}])
    return folder


def test_prompts(files):
    assert tasks.documents("arc_easy", files)[0] == {
        "prompt": "Question: Why?\nAnswer:",
        "choices": ["so", "not so", "perhaps"],
        "label": 2,
    }
    (one,) = tasks.documents("mmlu", files)
    assert one["choices"] == ["A", "B", "C"] and one["label"] == 2
    assert one["prompt"].startswith(
        "The following are multiple choice questions (with answers) about old maths.\n\nQ0\nA."
    )
    assert one["prompt"].count("Answer: A\n\n") == 5 and "other" not in one["prompt"]
    assert one["prompt"].endswith("\n\nQ\nA. so \nB. not so\nC. perhaps\nAnswer:")
    three = tasks.documents("g2p_phonologybench", files)
    assert (
        len(three) == 3
        and three[0]["answer"] == "f 5"
        and three[0]["prompt"].endswith("f 4\n\nWord: w5\nPhonemes:")
    )
    two = tasks.documents("translation_ntrex_deu_eng", files)
    assert (
        len(two) == 2
        and two[0]["answer"] == "e3"
        and two[0]["prompt"].endswith("deu: d2\neng: e2\n\ndeu: d3\neng:")
    )
    (spelt,) = tasks.documents("cute_spell_rand", files)
    assert spelt == {"prompt": 'Spell "abc". Answer: "', "answer": "a b c"}


def test_limit_is_spread_and_noise_has_its_places(files):
    assert len(tasks.documents("arc_easy", files, 4)) == 4
    found = tasks.requested(["arc_easy", "g2p_phonologybench"], files, 2, ["UpperCase"])
    assert [label for label in found if "arc" in label] == [
        "arc_easy",
        *(f"arc_easy UpperCase {place}" for place in noise.WHERE),
    ]
    at = {place: found[f"arc_easy UpperCase {place}"][1][0] for place in noise.WHERE}
    assert at["prompt"]["prompt"] == "QUESTION: WHY?\nANSWER:" == at["both"]["prompt"]
    assert (
        at["completion"]["prompt"] == "Question: Why?\nAnswer:"
        and at["prompt"]["choices"][0] == "so"
    )
    assert at["completion"]["choices"] == ["SO", "NOT SO", "PERHAPS"] == at["both"]["choices"]
    words = found["g2p_phonologybench UpperCase prompt"][1][0]
    assert words["prompt"].isupper() and words["answer"] == "f 5"
    assert "g2p_phonologybench UpperCase both" not in found
    scores = {label: {"documents": {"acc": [i, 0.0]}} for i, label in enumerate(found)}
    mean = tasks.averaged(scores)
    assert (
        mean["tasks"]["arc_easy UpperCase"]["documents"]["acc"] == [2.0, 0.0]
        and len(mean["places"]) == 3
    )
    assert set(mean["tasks"]) == {
        "arc_easy",
        "arc_easy UpperCase",
        "g2p_phonologybench",
        "g2p_phonologybench UpperCase prompt",
    }


def test_refusals_are_one_line(files, tmp_path):
    for name, line in (("arc_esy", "did you mean 'arc_easy'"), ("zzz", "--tasks=list names all")):
        with pytest.raises(ConfigError, match=line):
            tasks.chosen([name])
    assert len(tasks.chosen(["cute", "cute_spell"])) == 21
    rows = {
        "hellaswag": (
            [{"context": "a", "choices": ["b"], "label": 0}],
            "no field 'activity_label'",
        ),
        "piqa": (
            [{"goal": "a", "choices": [], "label": 0}],
            r"question 1 has choices \[\], label 0",
        ),
        "arc_challenge": ([{"question": "a", "choices": ["b", " "], "label": 0}], "needs texts"),
        "arc_easy": ([{"question": "a", "choices": ["b"], "label": 1}], "one of them right"),
        "g2p_phonologybench": ([], "has nothing for task"),
        "humaneval": ([3], "is not what task humaneval reads"),
    }
    for name, (records, line) in rows.items():
        write(tmp_path, f"{name}.jsonl", records)
        with pytest.raises(ConfigError, match=line):
            tasks.documents(name, tmp_path)
    (tmp_path / "piqa.jsonl").write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="piqa.jsonl: cannot be read as JSON lines"):
        tasks.documents("piqa", tmp_path)
    with pytest.raises(ConfigError, match="mmlu.jsonl.*no such file; --files=DIR"):
        tasks.documents("mmlu", tmp_path)
    with pytest.raises(ConfigError, match="humaneval: runs programs.*--execute allows it"):
        tasks.allowed({"humaneval": (tasks.TASKS["humaneval"], [])}, execute=False)


@pytest.mark.skipif(not SHARED.exists(), reason="the evaluation files are not here")
def test_every_task_reads_its_real_file():
    for name, task in tasks.TASKS.items():
        found = tasks.documents(name, SHARED, 3)
        assert len(found) == 3 and all(one["prompt"] for one in found), name
        if task.kind == tasks.EXACT:
            assert all(one["answer"].strip() for one in found)


def test_programs_run_in_a_fence(tmp_path):
    assert programs.passes("def f(x): return x + 1\nassert f(1) == 2")
    for program in (
        "assert False",
        "def broken(",
        "raise SystemExit(0)\nassert False",  # leaves before its tests
        "import os; os._exit(0)",
        "x = bytearray(1200 << 20)",
        "open('x', 'wb').write(b'x' * (4 << 20))",
    ):
        assert not programs.passes(program), program
    assert not programs.passes("while True: pass", seconds=1)
    secret = tmp_path / "x"
    assert programs.passes(
        f"import os\nassert not os.environ.get('HOME')\nopen({str(secret)!r}, 'w').write('x')"
    )


if SHARED.exists():

    def test_a_published_solution_passes():
        row = json.loads((SHARED / "humaneval.jsonl").read_text().splitlines()[0])
        (one,) = tasks.TASKS["humaneval"].make([row])
        assert programs.passes(one["head"] + row["canonical_solution"] + one["tail"])
        assert not programs.passes(one["head"] + "    return False\n" + one["tail"])
