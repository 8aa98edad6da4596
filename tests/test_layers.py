"""Imports point down only (design: layers), and no field of the config goes unread."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from blt_jax import config
from blt_jax.study import config as study

ROOT = Path(__file__).resolve().parents[1]
# What a run and a study are, how that is written down, where, and what may go wrong there.
CONFIG = {"config", "study", "record", "storage", "trouble"}
BELOW = {
    "trouble": {"config"},
    "storage": {"trouble", "config"},
    "record": {"config"},
    "study": {"config"},
    "config": {"presets"},  # for its one public name, inside the function
    "presets": {"config"},
    "nn": {"config"},
    "patching": {"config"},
    "flops": {"config"},
    "parallel": {"config"},
    "data": {"patching", "config"},
    "models": {"nn", "config"},
    "train": {"models", "data", "parallel", "flops", "eval", "interop", "config"},
    "eval": {"models", "data", "parallel", "flops", "patching", "train", "config"},
    "infer": {"models", "nn", "patching", "config"},
    "interop": {"models", "data", "parallel", "flops", "patching", "config"},
    "facade": {"models", "data", "eval", "infer", "interop", "patching", "train", "config"},
    "scaling": {"flops", "config", "study"},
}


def files():
    return sorted((ROOT / "blt_jax").rglob("*.py"))


def layer(path):
    parts = path.relative_to(ROOT / "blt_jax").with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = layer(path)
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "blt_jax":
            modules = [f"blt_jax.{alias.name}" for alias in node.names]
        for module in modules:
            assert not module.startswith(("launch", "experiments")), f"{path.name} imports {module}"
            if module.startswith("blt_jax."):
                target = module.split(".")[1]
                known = BELOW.get(own, set()) | (CONFIG if own != "config" else set())
                assert own == "__init__" or target == own or target in known, (
                    f"{own} imports {target}"
                )
            assert own not in ("scaling", "flops") or module.split(".")[0] != "jax", (
                f"{path.name} imports jax"
            )


def test_library_reads_no_flags_or_environment():
    for path in files():
        text = path.read_text()
        assert "absl import flags" not in text and "config_flags" not in text, path.name
        if path.name not in ("mesh.py", "preemption.py", "storage.py"):
            assert "os.environ" not in text and "getenv" not in text, path.name


def test_every_config_field_is_read():
    sources = "".join(
        p.read_text() for folder in ("blt_jax", "launch") for p in (ROOT / folder).rglob("*.py")
    )
    for kind in (vars(config) | vars(study)).values():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            for field in dataclasses.fields(kind):
                assert re.search(rf"\.{field.name}\b", sources), (
                    f"{kind.__name__}.{field.name} is read nowhere"
                )
