"""The names of files in run folders and study folders stand in one file each."""

import ast
import re
from pathlib import Path

import pytest

from blt_jax.runs import run_files
from blt_jax.study import folder as study_folder

ROOT = Path(__file__).resolve().parents[1]
OWNERS = {run_files: "blt_jax/runs/run_files.py", study_folder: "blt_jax/study/folder.py"}
NAMES = {  # name of a file: who owns it
    value: owner
    for module, owner in OWNERS.items()
    for key, value in vars(module).items()
    if key.isupper() and isinstance(value, str) and re.fullmatch(r"\w+\.(json|jsonl|txt)", value)
}
OTHERS = ("blt_jax/interop/", "blt_jax/facade.py")  # where config.json is transformers'


def strings(path):
    """Strings of a file that are no docstrings and no sentences."""
    tree = ast.parse(path.read_text())
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in texts and " " not in node.value:
                yield node.value


@pytest.mark.parametrize(
    "path", sorted((ROOT / "blt_jax").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_their_owner_spells_them(path):
    where = str(path.relative_to(ROOT))
    for text in strings(path):
        for name in re.findall(r"[\w.]+", text):
            if name in NAMES and NAMES[name] != where:
                assert name == run_files.CONFIG and where.startswith(OTHERS), f"{name} is spelled"


def test_the_names_are_known():
    assert {"result.json", "log.txt", "lease.json", "plan.json", "study.json"} <= set(NAMES)
