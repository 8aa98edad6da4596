"""Imports point down, files of ours import each other in no circle, and no config field goes unread
(ARCHITECTURE.md).
"""

import ast
import dataclasses
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from blt_jax import config
from blt_jax.study import config as study

ROOT = Path(__file__).resolve().parents[1]
# From the ground up; a room may import those before it. Launch and experiments lie above all. A run
# ends with its evaluation, so eval lies below train.
ROOMS = (
    "config storage_errors record storage batch flops nn patching families data parallel runs "
    "interop eval train infer facade scaling engines study"
).split()
NO_JAX = ("config", "record", "storage", "flops", "scaling", "engines")  # rooms that import no jax


def files(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(name):
    return name.split(".")[1] if "." in name else ""


NAMES = {module(path) for path in files("blt_jax", "launch", "experiments")}


def imports(path):
    """Modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                found.add(deeper if deeper in NAMES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", files("blt_jax"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = room(module(path))
    for name in imports(path):
        assert name.split(".")[0] not in ("launch", "experiments"), f"imports {name}"
        if name.startswith("blt_jax.") and own in ROOMS:
            target = room(name)
            assert target == own or ROOMS.index(target) < ROOMS.index(own), f"imports {name}"
        assert own not in NO_JAX or name.split(".")[0] != "jax", "imports jax"


def test_every_room_has_its_floor():
    rooms = {room(module(path)) for path in files("blt_jax")} - {"", "__main__"}
    assert rooms == set(ROOMS)


def test_no_circle_of_files():
    graph = {module(p): imports(p) & NAMES for p in files("blt_jax", "launch", "experiments")}
    try:
        TopologicalSorter({name: known - {name} for name, known in graph.items()}).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_a_file_name_stands_once():
    """But for the port's files in each family, and commands, which are named after what they do."""
    often = {"__init__", "__main__", "config", "cost", "model", "decode", "hf"}
    seen = {}
    for path in files("blt_jax", "launch/bench", "experiments"):
        if path.stem not in often:
            assert path.stem not in seen, f"{path} and {seen[path.stem]}"
            seen[path.stem] = path


def test_library_reads_no_flags_or_environment():
    for path in files("blt_jax"):
        text = path.read_text()
        assert "absl import flags" not in text and "config_flags" not in text, path.name
        if path.name not in ("mesh.py", "preemption.py", "storage.py", "client.py", "host.py"):
            assert "getenv" not in text, path.name


def test_every_config_field_is_read():
    sources = "".join(p.read_text() for p in files("blt_jax", "launch"))
    for kind in (vars(config) | vars(study)).values():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            for field in dataclasses.fields(kind):
                where = f"{kind.__name__}.{field.name}"
                assert re.search(rf"\.{field.name}\b", sources), f"{where} is read nowhere"
