"""Several processes that train one run: two with four devices each are one with eight; and what
happens when one is lost, or told to stop.
"""

import contextlib
import io
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from blt_jax import storage
from blt_jax.runs.checkpoint import load_params
from tests.bucket import bucket
from tests.faults import runs

TOLERANCE = 2e-5  # relative, float32: sums over devices are added up in another order
HEARTBEAT = 10  # seconds
LOST = "another process of this run is gone; start it again, it continues where it last saved"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return runs.study(tmp_path_factory.mktemp("study"))


def together(study, family, name, *more, devices):
    """The two processes of a run, each with an output of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more += (f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--heartbeat={HEARTBEAT}")
    return [
        runs.start(
            study, family, name, *more, f"--process={i}", devices=devices, log=f"{name}-{i}.log"
        )
        for i in (0, 1)
    ]


MESH = ("--config.mesh.data=2", "--config.mesh.fsdp=4", "--config.train.steps=18")


@pytest.fixture(scope="module")
def four(study):
    """A run of two processes with four devices each."""
    assert [process.wait() for process in together(study, "blt", "four", *MESH, devices=4)] == [
        0,
        0,
    ]
    return study / "four"


def until_saved(study, name, step, process, folder=None):
    while not ((folder or study / name) / "checkpoints" / str(step)).exists():
        assert process.poll() is None, (study / f"{name}-0.log").read_text()[-2000:]
        time.sleep(0.01)


@pytest.mark.parametrize(
    "body, code, line",
    [("os.abort", 75, "lost"), ("lambda: os.kill(os.getpid(), 9)", 1, "ended by")],
)
def test_how_the_child_ends(body, code, line):
    program = f"import os; from blt_jax.runs.supervise import supervised; os._exit(supervised({body}, 'lost it'))"
    done = subprocess.run([sys.executable, "-uc", program], capture_output=True, text=True)
    assert done.returncode == code and done.stderr.startswith(f"error: {line}"), done


@pytest.mark.slow
def test_two_processes_of_four_devices_equal_one_of_eight(study, four):
    assert runs.finish(study, "blt", "eight", *MESH, devices=8) == 0
    difference = runs.largest_difference(runs.outcome(four), runs.outcome(study / "eight"))
    print(f"\n2 processes x 4 devices against 1 x 8: largest relative difference {difference:.1e}")
    assert difference < TOLERANCE

    # Their newest checkpoints are read by a process of one device, as by those who generate and
    # evaluate.
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ours, theirs = (
            jax.tree.leaves(load_params(folder)[1]) for folder in (four, study / "eight")
        )
    assert said.getvalue() == ""
    assert (
        max(abs(a - b).max() / abs(a).max() for a, b in zip(ours, theirs, strict=True))
        < 10 * TOLERANCE
    )


@pytest.mark.slow
def test_one_is_lost_and_the_study_is_in_a_bucket(study, four, tmp_path):
    """As on a TPU pod. What was continued has the numbers of the undisturbed run on a disk, bit for
    bit.
    """
    with bucket(tmp_path) as name:
        for path in (study / "store").rglob("*"):
            if path.is_file():
                storage.write_bytes(f"{name}/{path.relative_to(study)}", path.read_bytes())
        remote = storage.at(f"{name}/four")
        first, second = together(study, "blt", "remote", *MESH, f"--workdir={remote}", devices=4)
        until_saved(study, "remote", runs.SAVES, first, remote)
        second.kill()
        assert first.wait(HEARTBEAT + 60) == 75 and not (remote / "result.json").exists()
        again = together(study, "blt", "remote", *MESH, f"--workdir={remote}", devices=4)
        assert [process.wait() for process in again] == [0, 0]
        assert runs.outcome(remote) == runs.outcome(four)


@pytest.mark.slow
def test_lost_then_stopped_then_on_other_devices(study):
    # One is killed: the other stops by itself, with a clear line, within a stated time.
    first, second = together(study, "bytes", "two", devices=1)
    until_saved(study, "two", runs.SAVES, first)
    second.kill()
    began = time.monotonic()
    assert first.wait(HEARTBEAT + 20) == 75
    print(
        f"\na lost process ends the other after {time.monotonic() - began:.1f} s, heartbeat "
        f"{HEARTBEAT} s"
    )
    assert (study / "two-0.log").read_text().rstrip().endswith(LOST)

    # One is told to stop: both save the same step and leave.
    first, second = together(study, "bytes", "two", devices=1)
    until_saved(study, "two", 3 * runs.SAVES, first)
    second.send_signal(signal.SIGTERM)
    assert (first.wait(60), second.wait(60)) == (42, 42)
    assert "stopped at step" in (study / "two-0.log").read_text()

    # The rest in one process: the same rows in the same order.
    assert runs.finish(study, "bytes", "two") == 0
    assert runs.finish(study, "bytes", "one") == 0
    told, whole = runs.outcome(study / "two"), runs.outcome(study / "one")
    assert [line["text_bytes"] for line in told[0]] == [line["text_bytes"] for line in whole[0]]
    difference = runs.largest_difference(told, whole)
    print(
        f"killed, stopped, and ended in one process: largest relative difference {difference:.1e}"
    )
    assert difference < TOLERANCE
