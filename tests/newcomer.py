"""A copy of the checkout in which somebody has added one file and one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import QUICK

ROOT = Path(__file__).resolve().parents[1]


def checkout(folder, new_file, text, register_file, after, line):
    """Copies the repository into `folder`; `text` becomes `new_file`, `line` comes after `after`.

    Paths are relative to the repository. No other file changes. Returns the copy's folder.
    """
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    register(folder, new_file, text, register_file, after, line)
    return folder


def register(folder, new_file, text, register_file, after, line):
    """Adds one more file and line to a copy."""
    assert not (folder / new_file).exists()
    (folder / new_file).write_text(text)
    lines = (folder / register_file).read_text().split("\n")
    at = next(i for i, known in enumerate(lines) if after in known)
    lines.insert(at + 1, line)
    (folder / register_file).write_text("\n".join(lines))


def run(folder, command, *arguments, code=0):
    """What `python -m launch.COMMAND` prints in a copy; checks its exit code."""
    argv = [sys.executable, "-m", f"launch.{command}", *map(str, arguments)]
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, env={"XLA_FLAGS": QUICK} | os.environ
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
