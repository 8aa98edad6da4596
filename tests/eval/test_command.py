"""launch.evaluate from the command line: tables, pictures and numbers of two models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run(*arguments):
    command = [sys.executable, "-m", "launch.evaluate", *map(str, arguments)]
    environment = os.environ | {"XLA_FLAGS": QUICK}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment
    )
    return done.returncode, done.stdout, done.stderr


def test_two_models_on_parallel_text(folder, models, tmp_path):
    texts = {"eng": "it is what it is", "rus": "что есть, то есть"}
    rows = [
        {"text": f"{text} {i}", "lang": lang, "id": i}
        for i in range(3)
        for lang, text in texts.items()
    ]
    (tmp_path / "parallel.jsonl").write_text("\n".join(map(json.dumps, rows)))
    places = ",".join(str(folder / "runs" / name) for name in ("patches", "tokens"))
    out = tmp_path / "out.json"
    how = [
        "--noise=UpperCase",
        "--thresholds=4.9",
        f"--json={out}",
        f"--plots={tmp_path / 'plots'}",
    ]
    code, told, complaint = run(f"--model={places}", f"--input={tmp_path / 'parallel.jsonl'}", *how)
    assert code == 0, complaint
    for words in (
        "bits per byte by lang",
        "rus",
        "cyrillic",
        "under noise",
        "UpperCase",
        "patch threshold",
    ):
        assert words in told
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {
        f"{name}.{kind}"
        for name in ("lang", "script", "noise", "thresholds")
        for kind in ("png", "svg")
    }
    found = json.loads(out.read_text())
    for name in ("patches", "tokens"):
        one = found["models"][name]["texts"]
        assert (
            one["lines"] == [1] * 6
            and one["lang"] == ["eng", "rus"] * 3
            and one["script"][:2] == ["latin", "cyrillic"]
        )
        bits = [models[name].bits(row["text"].encode()) for row in rows]
        assert one["bits"] == pytest.approx(bits, rel=1e-4)
    (row,) = [row for row in found["tables"]["lang"] if row[0] == "rus"]
    own, twin = (found["models"][name]["texts"] for name in ("patches", "tokens"))
    gap = (sum(own["bits"][1::2]) - sum(twin["bits"][1::2])) / sum(own["bytes"][1::2])
    assert row[3]["patches"]["gap"]["value"] == pytest.approx(gap)
    assert found["models"]["patches"]["dial"][0]["bits"] == pytest.approx(own["bits"], rel=1e-5)
