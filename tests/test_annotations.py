"""Public functions say what they take and give: every parameter and result is annotated."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(p for room in ("blt_jax", "launch") for p in (ROOT / room).rglob("*.py"))


def bare(path):
    """Names of public functions and methods that leave something unsaid."""
    tree, found = ast.parse(path.read_text()), []
    scopes = [("", tree)] + [
        (f"{node.name}.", node)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    for prefix, scope in scopes:
        for node in scope.body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                continue
            given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            given = given[1:] if prefix and given and given[0].arg in ("self", "cls") else given
            if node.returns is None or any(one.annotation is None for one in given):
                found.append(prefix + node.name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_annotated(path):
    assert not bare(path), bare(path)
