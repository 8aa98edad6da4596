"""Recipes of ARCHITECTURE.md that are one entry in one table."""

import json

from blt_jax.eval import tasks


def riddles(records):
    """Each record's riddle with its answer, as a document of kind "exact"."""
    return [{"prompt": f"{r['riddle']} Answer:", "answer": r["answer"]} for r in records]


def test_a_task_is_one_entry(monkeypatch, tmp_path):
    """An entry of TASKS is found by name, read from its file, cut by a limit, noised and refused
    like any other."""
    task = tasks.Task(tasks.EXACT, ("riddles",), riddles, most=16)
    monkeypatch.setitem(tasks.TASKS, "riddles", task)
    rows = [{"riddle": f"What is {n}?", "answer": str(n)} for n in range(4)]
    (tmp_path / "riddles.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert tasks.chosen(["riddles"]) == ["riddles"]
    first = {"prompt": "What is 0? Answer:", "answer": "0"}
    assert tasks.documents("riddles", tmp_path)[0] == first
    asked = tasks.requested(["riddles"], tmp_path, limit=2, noises=["UpperCase"])
    assert list(asked) == ["riddles", "riddles UpperCase prompt"]
    noised = asked["riddles UpperCase prompt"][1]
    assert [one["prompt"] for one in noised] == ["WHAT IS 0? ANSWER:", "WHAT IS 3? ANSWER:"]
    assert [one["answer"] for one in noised] == ["0", "3"]
