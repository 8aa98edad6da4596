"""An engine that is one file and one line: it takes a study through sweep, --status and --cancel."""

import json
import sys
import time
from pathlib import Path

import pytest

from tests import newcomer
from tests.launch.test_sweep import corpus

ENGINE = '''"""Engine `shell`: each run in the background of a shell that outlives us."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess

from blt_jax.engines import Engine, Queued


@dataclasses.dataclass(frozen=True)
class Shell(Engine):
    niceness: int = 0

    @property
    def prepares(self):
        return False

    def write(self, work, dry_run=False):
        folder = work.folder / "shell"
        folder.mkdir(exist_ok=True)
        for job in work.runs:
            line = f"exec nice -n {self.niceness} {job.command} >> {job.log} 2>&1"
            (folder / f"{job.name}.sh").write_text(line)
        return f"{folder} holds what would be submitted"

    def submit(self, work, jobs, queued):
        for job in jobs:
            script = work.folder / "shell" / f"{job.name}.sh"
            process = subprocess.Popen(
                ["bash", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            script.with_suffix(".pid").write_text(str(process.pid))
            yield job.name, str(process.pid)

    @classmethod
    def queue(cls, study, runs):
        jobs = []
        for index, name in enumerate(runs):
            with contextlib.suppress(OSError):
                number = (study / "shell" / f"{name}.pid").read_text()
                if pathlib.Path(f"/proc/{number}/cmdline").read_text():  # "" of one that is dead
                    jobs.append(Queued(number, "runs", index, True, ""))
        return jobs

    @classmethod
    def cancel(cls, study, runs):
        jobs = cls.queue(study, runs)
        for job in jobs:
            os.kill(int(job.job), signal.SIGTERM)
        return jobs
'''
LINE = '    "shell": "blt_jax.engines.shell:Shell",'
SMALL = """
    del config.families["blt"]  # compiles for long
    config.noise_bytes = 0
    return config
"""
RUN = "bpe-4e9-small-s0"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which processes live")
def test_a_study_by_an_engine_of_one_file(tmp_path):
    checkout = newcomer.checkout(
        *(tmp_path / "checkout", "blt_jax/engines/shell.py", ENGINE),
        *("blt_jax/engines/__init__.py", '"tpu_vm": ', LINE),
    )
    config, study = corpus(tmp_path), tmp_path / "study"
    config.write_text(config.read_text().replace("    return config\n", SMALL))
    given = [f"--config={config}", f"--workdir={study}", "--engine=shell", "--shell.niceness=3"]

    def sweep(*arguments, code=0):
        return newcomer.run(checkout, "sweep", *arguments, code=code)

    def wait(number):
        deadline, lives = time.monotonic() + 300, Path(f"/proc/{number}/cmdline")
        while lives.exists() and lives.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)

    assert "holds what would be submitted" in sweep(*given, "--dry_run")
    assert "nice -n 3 " in (study / "shell" / f"{RUN}.sh").read_text()
    output = sweep(*given)
    (number,) = [path.read_text() for path in (study / "shell").glob("*.pid")]
    assert f"submitted {RUN} as job {number}\n" in output and "when the runs have ended" in output
    assert "running  " in (table := sweep(f"--workdir={study}", "--status")), table
    assert f"job {number}" in table
    output = sweep(*given)
    assert "submitted" not in output and "0 of 1 runs are done, 1 in the queue" in output
    assert "cancelled 1 jobs" in sweep(f"--workdir={study}", "--cancel")
    wait(number)
    assert "not submitted" in sweep(f"--workdir={study}", "--status")

    assert f"submitted {RUN} as job" in sweep(*given)
    wait((study / "shell" / f"{RUN}.pid").read_text())
    assert "report: " in (output := sweep(*given)) and "submitted" not in output, output
    assert json.loads((study / "report" / "report.json").read_text())["done"] == 1
    assert " done " in sweep(f"--workdir={study}", "--status")
    assert "--shell.niceness=x" in sweep(*given, "--shell.niceness=x", code=2)
