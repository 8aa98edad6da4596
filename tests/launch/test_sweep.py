"""A small study from one command: plan, runs, report; again in seconds; killed and continued to the
same numbers.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blt_jax import storage
from blt_jax.runs import log_marks
from tests import QUICK
from tests.bucket import bucket

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from experiments import quickstart
from experiments.base import of

def get_config(_=""):
    config = quickstart.get_config()
    config.name = "tiny"
    config.budgets = (4e9,)
    for name, family in config.families.items():
        family.sizes = {"small": family.sizes["small"]}
    del config.families["spacebyte"]
    config.data.update(input=INPUT, max_bytes=60_000, validation_max_bytes=8_000, row_bytes=256)
    config.entropy_model.bytes = 20_000
    config.noise_bytes = 1_000
    config.train.log_every = 5
    return config
"""


def corpus(folder):
    """Text of this checkout's own sources: real, and always there."""
    paths = sorted((ROOT / "blt_jax").rglob("*.py"))
    lines = [
        json.dumps({"text": p.read_text(), "source": p.parent.name})
        for p in paths
        if p.read_text().strip()
    ]
    (folder / "text.jsonl").write_text("\n".join(lines))
    (folder / "tiny.py").write_text(CONFIG.replace("INPUT", repr(str(folder / "text.jsonl"))))
    return folder / "tiny.py"


def sweep(config, workdir, *more, env=os.environ, **how):
    how["env"] = {"XLA_FLAGS": QUICK} | env
    command = [
        sys.executable,
        "-m",
        "launch.sweep",
        f"--config={config}",
        f"--workdir={workdir}",
        *more,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how
    )


def finish(process):
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def wait_for(process, folder, pattern, seconds=300):
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def results(workdir):
    found = {}
    for path in sorted(workdir.glob("runs/*/result.json")):
        found[path.parent.name] = json.loads(path.read_text())
        del found[path.parent.name]["timing"]
    return found


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    config = corpus(folder)
    code, output = finish(sweep(config, folder / "study"))
    assert code == 0, output
    return config, folder / "study", output


def test_a_study_leaves_its_contract(studied):
    _, study, output = studied
    assert len(results(study)) == 2 and "2 runs" in output
    for name in (
        "plan.json",
        "study.json",
        "report/index.html",
        "report/points.csv",
        "report/report.json",
    ):
        assert (study / name).stat().st_size > 0
    page = (study / "report" / "index.html").read_text()
    assert "http://" not in page and "https://" not in page and "one seed" in page
    assert "Under noise" in page and "UpperCase" in page and "Along patch thresholds" in page
    assert {p.name for p in (study / "evaluations").iterdir()} == {"blt.json", "bpe.json"}
    for name, result in results(study).items():
        files = {p.name for p in (study / "runs" / name).iterdir()}
        assert {
            "config.json",
            "cost.json",
            "metrics.jsonl",
            "tensorboard",
            "checkpoints",
            "log.txt",
        } <= files
        assert (
            abs(result["train_flops"]["exact"] / result["budget"] - 1) < 0.1
            and 1 < result["validation"]["bpb"] < 8
        )


def test_again_recomputes_nothing(studied):
    config, study, _ = studied
    made = lambda: [*study.glob("runs/*/*.json*"), *study.glob("evaluations/*.json")]
    before = {p: p.stat().st_mtime_ns for p in made()}
    code, output = finish(sweep(config, study))
    assert code == 0 and "2 of 2 runs are done" in output
    assert before == {p: p.stat().st_mtime_ns for p in made()}


@pytest.mark.slow
def test_killed_in_the_middle_and_continued(studied, tmp_path):
    """In a bucket, and no disk outlives a process: the numbers are those of the undisturbed study,
    on a disk, bit for bit. The hard kill comes while runs train.
    """
    config, study, _ = studied
    with bucket(tmp_path / "copies") as name:
        killed, quick = storage.at(f"{name}/a study"), "--config.noise_bytes=0"
        process = sweep(config, killed, quick, start_new_session=True)
        wait_for(process, killed, "study.json")
        for path in (study / "compile_cache").iterdir():  # only time is saved
            storage.write_bytes(killed / "compile_cache" / path.name, path.read_bytes())
        wait_for(process, killed, "runs/*/checkpoints/*/commit_success.txt")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(results(killed)) < 2, "killed too late to show anything"
        code, output = finish(sweep(config, killed, "--status"))
        assert code == 0 and output.count("queued") == 2 - len(results(killed)), output
        shutil.rmtree(tmp_path / "copies")
        code, output = finish(sweep(config, killed, quick))
        assert code == 0, output
        assert results(killed) == results(study)
        assert (killed / "report" / "points.csv").read_bytes() == (
            study / "report" / "points.csv"
        ).read_bytes()
        assert log_marks.preemptions(killed / "runs" / "blt-4e9-small-s0" / "log.txt") == 1


def test_another_study_and_bad_settings_are_one_line(studied):
    config, study, _ = studied
    for more, words in (
        (["--config.data.row_bytes=512"], "holds another study (data.row_bytes: 256 -> 512"),
        (["--config.data.row_byte=512"], "row_bytes"),
        (
            ["--config.families.blt.sizes.small.model.latent.heads=3"],
            "heads = 3: must divide width",
        ),
        (["--config.families.blt.sizes.small.model.encoder.window=0"], "window = 0"),
        (["--config.budgets=(1.0,)", "--dry_run"], "too small for one step"),
    ):
        code, output = finish(sweep(config, study, *more))
        assert code == 2 and words in output and "Traceback" not in output, output
        assert len(output.strip().splitlines()) == 1, output
    for value, words in (("nothing/*.jsonl", "no such file"), (str(study.with_name("x.csv")), "")):
        code, output = finish(sweep(config, study.with_name("bad"), f"--config.data.input={value}"))
        assert code == 2 and words in output and "Traceback" not in output, output
