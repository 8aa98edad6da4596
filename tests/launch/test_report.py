"""launch.report: a table of one's own to a page, and one line for what a person got wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, "-m", "launch.report", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_table_with_names_of_its_own(tmp_path):
    rows = [
        (n, d, 6 * n * d, 1.7 + 400 / n**0.34 + 900 / d**0.3)
        for n in (1e8, 1e9, 1e10)
        for d in (1e9, 1e10, 1e11)
    ]
    table = tmp_path / "p.csv"
    table.write_text("N,tokens,C,L\n" + "\n".join(",".join(map(str, row)) for row in rows))
    names = "--columns=params=N,data=tokens,flops=C,loss=L"
    code, told, complaint = run(f"--points={table}", f"--output={tmp_path / 'out'}", names)
    assert code == 0, complaint
    assert told.strip() == f"report: {tmp_path / 'out' / 'index.html'}"
    assert (tmp_path / "out" / "scaling.svg").exists() and (
        tmp_path / "out" / "chinchilla.png"
    ).exists()


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "error: give one of --workdir=STUDY and --points=CSV, and not both"),
        (
            ["--workdir=a", "--points=b"],
            "error: give one of --workdir=STUDY and --points=CSV, and not both",
        ),
        (["--points=b"], "error: --points needs --output=DIR"),
        (["--workdir=a", "--output=b"], "error: --output and --columns go with --points"),
        (["--workdir=absent"], "error: absent: no plan.json here"),
        (["--points=absent.csv", "--output=b"], "error: absent.csv: cannot be read"),
        (["--points=README.md", "--output=b"], "error: README.md: no column for"),
    ],
)
def test_mistakes_are_one_line(arguments, line):
    code, _, complaint = run(*arguments)
    assert code == 2 and complaint.startswith(line) and len(complaint.strip().splitlines()) == 1, (
        complaint
    )
