"""The table of a study that has runs in all states, on a pipe and on a terminal."""

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import time

import pytest

from blt_jax.config import ConfigError
from blt_jax.engines import Queued
from blt_jax.runs import log_marks, run_state
from blt_jax.runs.lease import Lease, holder
from blt_jax.study import overview, status
from tests.launch.test_sweep import CONFIG, ROOT

MARKS = {
    "done": [
        "started",
        "saved",
        "started",
        "started",
        "finished",
    ],  # told to stop once, killed once
    "running": ["started"],
    "failed": ["started", "retry", "started", "failed"],
    "queued": [],
}


@pytest.fixture
def study(tmp_path):
    """A planned study with one run in each state; the lease of `running` is ours."""
    folder = tmp_path / "study"
    for name, marks in MARKS.items():
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"train": {"steps": 100}}))
        lines = [
            {"step": s, "text_bytes": 50 * s, "seconds": s / 10, "bpb": 3.25} for s in (10, 20)
        ]
        lines[1]["speed"] = {"mfu_exact": 0.4125}
        if name in ("running", "failed"):
            (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "log.txt").write_text(
            "".join(f"{log_marks.line(mark, '')}a line [red]\n" for mark in marks)
        )
    result = {"validation": {"bpb": 2.5}, "timing": {"seconds": 75}}
    (folder / "runs" / "done" / "result.json").write_text(json.dumps(result))
    (folder / "study.json").write_text("{}")
    (folder / "plan.json").write_text(json.dumps({"runs": [{"name": name} for name in MARKS]}))
    (tmp_path / "tiny.py").write_text(CONFIG.replace("INPUT", repr("text.jsonl")))
    with Lease(folder / "runs" / "running"):
        yield folder


def sweep(study, *more):
    """(exit code, stdout, stderr) of the command, without --config."""
    command = [sys.executable, "-m", "launch.sweep", f"--workdir={study}"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_all_states_on_a_pipe(study):
    code, table, error = sweep(study, "--status")
    assert (code, error) == (0, "")
    words = {line.split()[0]: re.split(r"  +", line.strip()) for line in table.splitlines()}
    assert words["run"] == ["run", "state", "step", "BPB", "bytes/s", "MFU", "time", "preempted"]
    assert words["running"][1:7] == ["running", "20 / 100", "3.250", "500", "41.2%", "8 s left"]
    assert words["done"][1:] == ["done", "2.500", "1 min 15 s", "2"]
    assert words["failed"][1:] == ["failed", "20 / 100", "3.250", "a line [red]"]
    assert words["queued"][1:] == ["queued", "0 / 100"]
    assert "\x1b" not in table and not any(line.endswith(" ") for line in table.splitlines())


def test_a_terminal_gets_colours_until_all_is_done(study, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    looks = []

    def read():
        looks.append(1)
        if len(looks) == 2:
            (study / "runs" / "queued" / "log.txt").write_text(
                log_marks.line("failed", "in the end " + 9 * "a word ")
            )
        return [run_state.read(study / "runs" / name) for name in ("done", "failed", "queued")]

    status.show(read, terminal, every=0.01)
    assert len(looks) == 2
    assert "\x1b[" in terminal.getvalue() and "[red]" in terminal.getvalue()
    lines = re.sub(r"\x1b\[[\d;?]*\w", "", terminal.getvalue()).splitlines()[-6:]
    assert all(len(line) <= 80 for line in lines)
    assert any(re.match(r"failed +failed +20 / 100 +3.250 +a line", line) for line in lines), (
        lines
    )  # a long one beside it
    assert "in the end " + 9 * "a word " in " ".join(line.strip() for line in lines) + " "


@pytest.mark.parametrize(
    "name, jobs, state, message",
    [
        ("done", [Queued("7_0", "runs", 0, True, "")], "done", ""),
        ("queued", [Queued("7_3", "runs", 3, True, "")], "running", "job 7_3"),
        ("failed", [Queued("7_2", "runs", 2, False, "Priority")], "queued", "job 7_2: Priority"),
        ("failed", [], "failed", "a line [red]"),
        ("queued", [], "queued", "not submitted"),
        (
            "queued",
            [Queued("r-x", "runs", 3, False, "out of memory", True)],
            "queued",
            "not submitted; job r-x ended: out of memory",
        ),
    ],
)
def test_what_the_queue_adds(study, name, jobs, state, message):
    found = overview.queued_state(run_state.read(study / "runs" / name), jobs)
    assert (found.state, found.message) == (state, message)


def test_a_config_beside_status_is_no_mistake(study):
    config = f"--config={study.parent / 'tiny.py'}"
    assert sweep(study, config, "--status") == sweep(study, "--status=true")
    code, _, error = sweep(study, config, "--config.budget=1", "--status")
    assert code == 2 and "unknown config key 'budget': did you mean 'budgets'?" in error


@pytest.mark.parametrize("more", [[], ["--dry_run"], ["--nostatus"], ["--status=false"]])
def test_everything_else_needs_a_config(study, more):
    error = "error: --config=FILE is missing; --help shows an example\n"
    assert sweep(study, *more) == (2, "", error)


def test_no_study_and_nothing_to_cancel(study):
    code, _, error = sweep(study.with_name("nothing"), "--status")
    assert code == 2 and "holds no study" in error and error.count("\n") == 1
    assert sweep(study, "--cancel")[:2] == (
        0,
        "nothing to cancel: no job of this study is queued or running\n",
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set: [seconds]."""
    now = [0.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    return now


def test_a_pipe_gets_a_line_when_something_changed(study, clock):
    """And one a minute where a run takes long."""
    runs = [study / "runs" / name for name in ("done", "running", "failed", "queued")]
    stream = io.StringIO()

    def update(until, step=1):
        """The lines of so many seconds."""
        before = len(stream.getvalue())
        while clock[0] < until:
            watch.update([])
            clock[0] += step
        return stream.getvalue()[before:].splitlines()

    with status.Watch(dict.fromkeys(runs, 1.0), stream) as watch:
        first = update(60)
        assert len(first) == 1 and first[0].startswith("1 of 4 runs done, 1 running, 1 failed, 1 q")
        assert update(120) == first and update(180) == first  # one a minute
        (study / "runs" / "queued" / "result.json").write_text("{}")
        changed = update(200)
        assert changed[0] == "done queued: BPB " and len(changed) == 2, changed
        assert changed[1].startswith("2 of 4 runs done, 1 running, 1 failed, ")
        assert update(239) == []
    assert stream.getvalue().splitlines()[-1] == changed[1]  # it is not said again


def test_cancel_tells_the_launcher(study, capsys):
    hold = "import sys, time; from blt_jax.runs.lease import Lease; Lease(sys.argv[1]).__enter__(); time.sleep(60)"
    launcher = subprocess.Popen([sys.executable, "-c", hold, str(study)], cwd=ROOT)
    while holder(study) is None:
        assert launcher.poll() is None
        time.sleep(0.05)
    elsewhere = dataclasses.replace(holder(study), host="elsewhere", heartbeat=time.time())
    assert overview.cancel(study) == 0 and launcher.wait(10) == -signal.SIGTERM
    assert f"told process {launcher.pid} on" in capsys.readouterr().out

    (study / "lease.json").write_text(json.dumps(dataclasses.asdict(elsewhere)))
    with pytest.raises(ConfigError, match="on elsewhere since .*: cancel it there"):
        overview.cancel(study)
