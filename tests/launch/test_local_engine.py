"""The local engine on fake jobs of every kind, and what the run folders then say."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from blt_jax.config import ConfigError
from blt_jax.engines import Job, local
from blt_jax.runs import lease, log_marks, run_state
from blt_jax.runs.lease import Lease
from blt_jax.study import status

# Each fake job counts its attempts in its folder, and behaves accordingly.
FAKE = """
import json, os, pathlib, signal, sys, time
sys.path[:0] = {path!r}
folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
attempt = len(list(folder.glob("attempt*")))
(folder / f"attempt{{attempt}}").write_text(str(os.getpid()))

def finish():
    (folder / "metrics.jsonl").write_text(json.dumps(dict(step=9, bpb=2.5, text_bytes=900, seconds=3.0)) + "\\n")
    result = dict(validation=dict(bpb=2.25), timing=dict(seconds=3.5))
    (folder / "draft").write_text(json.dumps(result))
    os.replace(folder / "draft", folder / "result.json")
    sys.exit(0)

if kind == "flaky" and attempt == 0:
    raise RuntimeError("the disk hiccuped")
if kind == "fails":
    print("about to fail")
    sys.exit("boom [red]")
if kind == "silent":
    sys.exit(0)
if kind == "killed" and attempt == 0:
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "saves" and attempt < 3:
    sys.exit(42)
if kind == "helper":
    import subprocess
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "helper").write_text(str(helper.pid))
if kind == "environment":
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    names = "NPROC", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"
    (folder / "seen.json").write_text(json.dumps([cores] + [os.environ.get(name) for name in names]))
    time.sleep(0.5)  # so that the other job gets the other slot
if kind == "leased":
    from blt_jax.runs.lease import Lease
    with Lease(folder):
        finish()
if kind == "hangs":
    (folder / "hanging").touch()
    time.sleep(60)
if kind == "trains":
    from blt_jax.runs.preemption import StopSignal
    with StopSignal() as stop:
        (folder / "hanging").touch()
        while not stop.requested:
            time.sleep(0.02)
    print("saved", flush=True)
    sys.exit(42)
finish()
"""

LAUNCHER = """
import pathlib, sys
from blt_jax.runs.lease import Lease
from blt_jax.engines import local
sys.path.insert(0, {tests!r})
from test_local_engine import make_jobs
folder = pathlib.Path(sys.argv[1])
with Lease(folder, "study"):
    result = local.run(make_jobs(folder, *sys.argv[2:]), 2)
sys.exit(130 if result.interrupted else 0)
"""


def make_jobs(folder, *kinds):
    script = folder / "fake.py"
    script.write_text(FAKE.format(path=sys.path))
    return [
        Job(
            kind,
            [sys.executable, "-S", str(script), str(folder / kind), kind.split("-")[0]],
            folder / kind,
        )
        for kind in kinds
    ]


@pytest.fixture
def start_launcher():
    """Starts a launcher process; whatever the test finds, none is left behind."""
    started = []

    def start(folder, *kinds):
        code = LAUNCHER.format(tests=os.path.dirname(__file__))
        argv = [sys.executable, "-c", code, str(folder), *kinds]
        started.append(subprocess.Popen(argv, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid):
    return lease._process_lives(pid, 0)  # zombies do not count


def test_every_kind_of_job(tmp_path):
    kinds = ["ok", "flaky", "fails", "killed", "saves", "silent"]
    result = local.run(make_jobs(tmp_path, *kinds), 2)
    assert not result.interrupted
    assert [(o.job.name, o.state, o.attempts) for o in result.outcomes] == [
        ("ok", "done", 1),
        ("flaky", "done", 2),
        ("fails", "failed", 2),
        ("killed", "done", 2),
        ("saves", "done", 4),
        ("silent", "failed", 2),
    ]
    messages = {o.job.name: o.message for o in result.outcomes if o.message}
    assert messages == {
        "fails": "exit code 1: boom [red]",
        "silent": "exit code 0, but no result.json",
    }
    log = (tmp_path / "flaky" / "log.txt").read_text()
    assert log.count("started: " + result.outcomes[1].job.command) == 2
    assert (
        "RuntimeError: the disk hiccuped" in log
        and "retry: exit code 1" in log
        and "finished" in log
    )
    assert "signal 9" in (tmp_path / "killed" / "log.txt").read_text()

    again = local.run(make_jobs(tmp_path, "ok", "flaky", "killed", "saves"), 2)
    assert [(o.state, o.attempts) for o in again.outcomes] == [("done", 0)] * 4


def test_states_are_read_from_the_folders_alone(tmp_path):
    for kind in ("ok", "fails", "silent"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "config.json").write_text(json.dumps({"train": {"steps": 9}}))
    jobs = make_jobs(tmp_path, "ok", "fails", "silent")
    assert [run_state.read(job.folder).state for job in jobs] == ["queued"] * 3
    local.run(jobs, 2)
    ok, fails, silent = [run_state.read(job.folder) for job in jobs]
    assert (ok.state, ok.bpb, ok.seconds) == ("done", 2.25, 3.5)
    assert (fails.state, fails.message) == ("failed", "exit code 1: boom [red]")
    assert (silent.state, silent.message) == ("failed", "exit code 0, but no result.json")
    assert run_state.read(fails_again_queued(tmp_path)).state == "queued"


def fails_again_queued(tmp_path):
    """A launcher that will try a failed job again says so in its folder at once."""
    job = make_jobs(tmp_path, "fails")[0]
    with Lease(job.folder):  # keeps the engine from starting it
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert local.run([job], 1).interrupted
    return job.folder


def test_last_words_are_those_of_the_latest_attempt(tmp_path):
    log = tmp_path / "log.txt"
    assert log_marks.last(log) == ("", "")
    log.write_text("a run started by hand\n")
    assert log_marks.last(log) == ("", "a run started by hand")
    first = (
        log_marks.line("started", "x")
        + "step 1\rstep 2\nMemoryError: old\n"
        + log_marks.line("retry", "exit code 1")
    )
    log.write_text(first)
    assert log_marks.last(log) == ("retry", "exit code 1: MemoryError: old")
    log.write_text(first + log_marks.line("started", "x"))
    assert log_marks.last(log) == ("started", "x")
    log.write_text(
        first + log_marks.line("started", "x") + log_marks.line("failed", "signal 9 (Killed)")
    )
    assert log_marks.last(log) == ("failed", "signal 9 (Killed)")
    log.write_text(
        first
        + log_marks.line("started", "x")
        + "step 1\rstep 3\r\n\n"
        + log_marks.line("failed", "exit code 1")
    )
    assert log_marks.last(log) == ("failed", "exit code 1: step 3")


def test_running_state_by_the_metrics_tail(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"train": {"steps": 100}}))
    lines = [
        dict(step=s, bpb=8 - s / 10, text_bytes=1000 * s, seconds=0.5 * s + (s > 20))
        for s in range(10, 41, 10)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(
        "x" * 50_000 + "\n" + text + '{"step": 5'
    )  # a line half written
    assert run_state.read(tmp_path).state == "queued"
    with Lease(tmp_path):
        seen = run_state.read(tmp_path)
    assert (seen.state, seen.step, seen.steps, seen.bpb) == ("running", 40, 100, 4.0)
    assert seen.rate == pytest.approx(10_000 / 5) and seen.seconds == pytest.approx(60 * 0.5)
    assert seen.message.startswith(f"by process {os.getpid()}")
    assert run_state.read(tmp_path, running=True).message == ""


def test_interrupt_lets_jobs_save_and_the_rest_wait(tmp_path, start_launcher):
    launcher = start_launcher(tmp_path, "trains", "trains-2", "ok")
    wait_for(lambda: len(list(tmp_path.glob("*/hanging"))) == 2)
    refused = start_launcher(tmp_path, "ok")
    _, told = refused.communicate(timeout=15)
    assert refused.returncode == 1 and f"is in use by process {launcher.pid}" in told
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=15) == 130
    assert "saved\n====" in (tmp_path / "trains" / "log.txt").read_text()
    assert "stopped: with the launcher" in (tmp_path / "trains-2" / "log.txt").read_text()
    assert not (tmp_path / "ok").exists()
    assert not (tmp_path / "lease.json").exists()


def test_a_job_that_does_not_save_in_time_is_killed(tmp_path):
    jobs = make_jobs(tmp_path, "hangs")
    script = tmp_path / "fake.py"
    script.write_text(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + script.read_text()
    )

    def watch(folders):
        table.update(folders)
        if (tmp_path / "hangs" / "hanging").exists():
            os.kill(os.getpid(), signal.SIGINT)

    began, stream = time.monotonic(), io.StringIO()
    with status.Watch({tmp_path / "hangs": 1.0}, stream) as table:
        result = local.run(jobs, 1, watch=watch, grace=0.3)
    assert stream.getvalue().count("started") == 1
    assert time.monotonic() - began < 10
    assert result.interrupted and result.outcomes[0].state == "stopped"
    assert not alive(int((tmp_path / "hangs" / "attempt0").read_text()))


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux kills the children of a killed process"
)
def test_jobs_die_with_a_killed_launcher_and_the_study_goes_on(tmp_path, start_launcher):
    launcher = start_launcher(tmp_path, "hangs", "ok")
    wait_for((tmp_path / "hangs" / "hanging").exists)
    pid = int((tmp_path / "hangs" / "attempt0").read_text())
    assert alive(pid)
    launcher.kill()
    launcher.wait()
    wait_for(lambda: not alive(pid))
    assert run_state.read(tmp_path / "hangs").state == "queued"
    assert (
        start_launcher(tmp_path, "ok").wait(timeout=15) == 0
    )  # the dead launcher's lease is no obstacle
    assert run_state.read(tmp_path / "ok").state == "done"


def test_a_run_held_by_another_process_is_waited_for(tmp_path):
    jobs = make_jobs(tmp_path, "leased", "ok")
    running = []
    began = time.monotonic()

    def watch(folders):
        running.append([folder.name for folder in folders])
        if time.monotonic() - began > 0.8 and held.folder.joinpath("lease.json").exists():
            held.__exit__()

    held = Lease(tmp_path / "leased")
    held.__enter__()
    assert run_state.read(tmp_path / "leased").state == "running"
    result = local.run(jobs, 2, watch=watch)
    assert ["ok"] in running  # the rest goes on meanwhile
    assert [(o.state, o.attempts) for o in result.outcomes] == [("done", 1), ("done", 1)]


def test_a_run_that_another_process_finishes_is_not_started(tmp_path):
    jobs = make_jobs(tmp_path, "ok")
    held = Lease(tmp_path / "ok")
    held.__enter__()

    def watch(folders):
        (tmp_path / "ok" / "result.json").write_text("{}")
        if (tmp_path / "ok" / "lease.json").exists():
            held.__exit__()

    result = local.run(jobs, 1, watch=watch)
    assert [(o.state, o.attempts) for o in result.outcomes] == [("done", 0)]


def test_losing_the_race_for_a_run_is_no_failure(tmp_path, monkeypatch):
    """The lease is free when we look, and taken when the process asks for it."""
    jobs = make_jobs(tmp_path, "leased")
    looks = []
    real = local.lease.holder

    def free_at_first(folder):
        looks.append(folder)
        return None if len(looks) == 1 else real(folder)

    monkeypatch.setattr(local.lease, "holder", free_at_first)
    held = Lease(tmp_path / "leased")
    held.__enter__()

    def watch(folders):
        if len(looks) > 2 and (tmp_path / "leased" / "lease.json").exists():
            held.__exit__()

    result = local.run(jobs, 1, watch=watch)
    assert [(o.state, o.attempts) for o in result.outcomes] == [("done", 2)]
    log = (tmp_path / "leased" / "log.txt").read_text()
    assert "left: another process has the run" in log and "retry" not in log


def test_helpers_end_with_their_job(tmp_path):
    local.run(make_jobs(tmp_path, "helper"), 1)
    wait_for(lambda: not alive(int((tmp_path / "helper" / "helper").read_text())), seconds=5)


def test_cores_and_devices_are_divided(tmp_path):
    local.run(make_jobs(tmp_path, "environment-a", "environment-b"), 2, devices=["GPU-x", "GPU-y"])
    seen = [json.loads((tmp_path / f"environment-{x}" / "seen.json").read_text()) for x in "ab"]
    assert {one[3] for one in seen} == {"GPU-x", "GPU-y"}
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for cores, threads, also_threads, _ in seen:
        assert threads == also_threads and int(threads) == max(len(cores), 1)
    if len(usable) > 1:
        assert sorted(seen[0][0] + seen[1][0]) == usable


def test_more_workers_than_cores_share(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert [local._environment(slot, 3, ())[1] for slot in range(3)] == [(3,), (3,), (5,)]


@pytest.mark.parametrize(
    "workers, devices, message",
    [
        (0, [], "workers = 0: must be at least 1"),
        (2, ["0"], "workers = 2: there are only 1 devices"),
    ],
)
def test_impossible_worker_counts(workers, devices, message):
    with pytest.raises(ConfigError, match=message):
        local.run([], workers, devices)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path):
    jobs = make_jobs(tmp_path, "ok", "ok-2")
    (tmp_path / "ok").mkdir()
    (tmp_path / "ok" / "log.txt").symlink_to("/dev/full")
    full, fine = local.run(jobs, 1).outcomes
    assert (full.state, full.attempts, fine.state) == ("failed", 0, "done")
    assert full.message.startswith(
        f"cannot start the run in {tmp_path / 'ok'}: the disk is full; free some space"
    )


def test_a_program_that_is_not_there(tmp_path):
    result = local.run([Job("x", ["no-such-program"], tmp_path)], 1)
    assert (
        result.outcomes[0].message
        == "exit code 1: cannot run no-such-program: No such file or directory"
    )


def test_lines_on_a_pipe(tmp_path):
    jobs = make_jobs(tmp_path, "ok", "fails")
    stream = io.StringIO()
    with status.Watch({job.folder: 1e9 for job in jobs}, stream) as watch:
        local.run(jobs, 1, watch=watch.update)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "started ok",
        "0 of 2 runs done, 1 running, 1 queued, 0% of the training FLOPs",
        "done ok: BPB 2.2500 in 4 s",
        "started fails",
        "failed fails: exit code 1: boom [red]",
        "1 of 2 runs done, 1 failed, 50% of the training FLOPs",
    ]


def test_table_on_a_terminal_fits_its_height(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for name, value in {"TERM": "xterm", "LINES": "20", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    for i in range(40):
        (tmp_path / f"run{i:02d}").mkdir()
    (tmp_path / "run30" / "config.json").write_text(json.dumps({"train": {"steps": 9}}))
    (tmp_path / "run30" / "metrics.jsonl").write_text(
        '{"step": 3, "bpb": 4.5, "text_bytes": 900, "seconds": 3}\n'
    )
    (tmp_path / "run07" / "log.txt").write_text(
        log_marks.line("started") + "[red]\n" + log_marks.line("failed", "exit code 1")
    )
    terminal = Terminal()
    with status.Watch({folder: 1.0 for folder in sorted(tmp_path.iterdir())}, terminal) as watch:
        terminal.truncate(0)
        watch.update([tmp_path / "run30"])
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).splitlines()
    assert len(lines) == 19
    assert lines[1].split() == [
        "run30",
        "running",
        "3",
        "/",
        "9",
        "4.500",
        "6",
        "s",
        "left",
    ]  # a narrow one
    assert lines[2].split() == ["run07", "failed", "exit", "code", "1:", "[red]"]
    assert "... 24 more" in lines[-2]
    words = "0 of 40 runs done, 1 running, 1 failed, 38 queued, 1% of the training FLOPs, about 5 min 48 s left"
    assert lines[-1].strip() == words  # two thirds of a run take 6 s; 38 more will be run
