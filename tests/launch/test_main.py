"""blt-jax, or python -m blt_jax: every command from any folder; and what a wheel holds."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from blt_jax import __main__ as blt_jax_main

ROOT = Path(__file__).resolve().parents[2]


def call(folder, *argv):
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "250"}
    command = [sys.executable, "-m", "blt_jax", *argv]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_commands_are_those_that_can_be_run():
    known = blt_jax_main.commands(ROOT / "launch")
    assert list(known) == ("bench evaluate fit generate plan preprocess report sweep train".split())
    assert known["sweep"] == "Run a study: prepare, plan, train what has no result yet, report."


def test_without_arguments_it_lists_the_commands(tmp_path):
    shown = call(tmp_path)
    assert shown.returncode == 0 and shown.stdout == call(tmp_path, "--help").stdout
    assert "  sweep       Run a study: prepare, plan, train" in shown.stdout


def test_a_command_runs_from_an_empty_folder(tmp_path):
    (tmp_path / "launch").mkdir()  # somebody else's
    (tmp_path / "launch" / "__init__.py").write_text("raise ImportError('not ours')")
    plan = call(tmp_path, "plan", "--config=quickstart", "--runs=blt-*-tiny-s0")
    assert plan.returncode == 0 and "blt-5e10-tiny-s0" in plan.stdout, plan.stderr
    shown = call(tmp_path, "plan", "--help")
    assert shown.stdout.startswith("Print a study's runs") and "--runs: Only runs" in shown.stdout


@pytest.mark.parametrize(
    "argv, message",
    [
        (["swep"], "error: unknown command 'swep': did you mean 'sweep'?"),
        (["flags"], "error: unknown command 'flags': "),
        (["plan", "--config=quickstrt"], "error: --config=quickstrt: no file, and no experiment"),
    ],
)
def test_mistakes_are_one_line(tmp_path, argv, message):
    failed = call(tmp_path, *argv)
    assert failed.returncode == 2 and failed.stderr.startswith(message), failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_wheel_holds_one_package(tmp_path):
    """All files of blt_jax, launch and experiments, under blt_jax; nothing beside it."""
    pytest.importorskip("setuptools", minversion="77")
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("blt_jax", "launch", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    for path in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(path, tmp_path / path.name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('out'))"
    built = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kinds = (".py", ".j2", ".svg", "py.typed")
    wanted = {
        str(path.relative_to(ROOT))
        for folder in ("blt_jax", "launch", "experiments")
        for path in (ROOT / folder).rglob("*")
        if path.name.endswith(kinds)
    }
    assert names == {name if name.startswith("blt_jax/") else f"blt_jax/{name}" for name in wanted}
    (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert b"blt-jax = blt_jax.__main__:main" in archive.read(entry_points)
