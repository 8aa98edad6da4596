"""A rule that somebody adds: one file and one line, and every command knows it."""

import csv
import json
import os
import subprocess
import sys

import pytest

from tests import QUICK
from tests.launch.test_sweep import corpus
from tests.newcomer import checkout, run

RULE = '''
"""Rule "vowel": a patch begins after each vowel."""

import numpy as np

from blt_jax.config import BYTE_OFFSET
from blt_jax.patching import Rule

VOWELS = np.frombuffer(b"aeiouAEIOU", np.uint8).astype(np.int32) + BYTE_OFFSET


class Vowel(Rule):
    def decide(self, ids, entropies, patching):
        return np.isin(ids[..., 1:], VOWELS)

    def step(self, memory, position_B, ids_B, entropy_B, patching):
        return memory, (ids_B[:, None] == VOWELS).any(axis=-1)
'''
CONFIG = """
from experiments import quickstart

def get_config(_=""):
    config = quickstart.get_config()
    family = config.families.blt
    family.sizes = {"small": family.sizes["small"]}
    family.patching.update(rule="vowel", target=0.0)
    family.label = "BLT, vowel patches"
    config.families = {"vowels": family}
    config.budgets = (4e9,)
    config.data.update(input=INPUT, max_bytes=60_000, validation_max_bytes=8_000, row_bytes=256)
    config.noise_bytes = 1_000
    return config
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The checkout with the rule, and a study of it: (folder, config, corpus)."""
    folder = checkout(
        tmp_path_factory.mktemp("checkout"),
        "blt_jax/patching/vowel.py",
        RULE,
        "blt_jax/patching/__init__.py",
        '"bpe": "blt_jax',
        '    "vowel": "blt_jax.patching.vowel:Vowel",',
    )
    outside = tmp_path_factory.mktemp("study")
    corpus(outside)
    (outside / "vowels.py").write_text(CONFIG.replace("INPUT", repr(str(outside / "text.jsonl"))))
    return folder, outside / "vowels.py", outside / "text.jsonl"


def test_the_tests_of_every_rule_take_it_up(copy):
    folder, _, _ = copy
    files = [f"tests/patching/test_{name}.py" for name in ("rules", "live", "port")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-k", "vowel", *files],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": QUICK},
    )
    assert done.returncode == 0 and "8 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_through_every_command(copy):
    folder, config, text = copy
    planned = run(folder, "plan", f"--config={config}")
    assert "vowels-4e9-small-s0" in planned and "assumed, not measured" in planned
    study = config.parent / "study"
    run(folder, "sweep", f"--config={config}", f"--workdir={study}")
    assert not (study / "entropy_model").exists()
    model = study / "runs" / "vowels-4e9-small-s0"
    assert json.loads((model / "result.json").read_text())["validation"]["bpb"] < 8
    facts = json.loads((study / "plan.json").read_text())["facts"]["vowels"]
    assert facts["patching"]["rule"] == "vowel" and 2 < facts["bytes_per_unit"] < 8

    scored = config.parent / "scores.json"
    run(
        folder,
        "evaluate",
        f"--model={model}",
        f"--input={text}",
        "--max_bytes=2000",
        f"--json={scored}",
    )
    assert "vowels-4e9-small-s0" in scored.read_text()
    written = run(
        folder, "generate", f"--model={model}", "--prompt=import ", "--max_new_bytes=24", "--colour"
    )
    assert "import" not in written.splitlines()[0] and "\033[" in written

    (study / "report" / "points.csv").unlink()
    run(folder, "report", f"--workdir={study}")
    (point,) = csv.DictReader((study / "report" / "points.csv").open())
    assert "vowels" in point.values()
    page = (study / "report" / "index.html").read_text()
    assert "BLT, vowel patches" in page

    wrong = run(
        folder,
        "plan",
        f"--config={config}",
        "--config.families.vowels.patching.rule=vowels",
        code=2,
    )
    assert "did you mean 'vowel'?" in wrong
