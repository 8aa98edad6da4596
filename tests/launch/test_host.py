"""What a host of a slice runs around a command: its log, its exit code, the wait for a dead host's
lease.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from blt_jax import storage
from blt_jax.engines import host
from blt_jax.runs import lease, log_marks
from tests.bucket import bucket


def attempt(folder, *argv, worker=0):
    command = [
        sys.executable,
        "-m",
        "blt_jax.engines.host",
        f"{folder}/log.txt",
        f"{folder}/result.json",
        *argv,
    ]
    environment = os.environ | {"TPU_WORKER_ID": str(worker)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    "code, result, worker, ends, mark",
    [
        (0, True, 0, 0, "finished"),
        (0, False, 0, 1, "failed"),
        (3, False, 0, 3, "failed"),
        (
            75,
            False,
            0,
            75,
            "started",
        ),  # another host is gone: counts as preempted when it starts again
        (3, False, 1, 3, ""),  # the first host alone keeps the log
    ],
)
def test_exit_codes(tmp_path, code, result, worker, ends, mark):
    if result:
        (tmp_path / "result.json").touch()
    done = attempt(tmp_path, "bash", "-c", f"echo words; exit {code}", worker=worker)
    assert done.communicate() == (b"words\n", None) and done.returncode == ends
    assert log_marks.last(tmp_path / "log.txt")[0] == mark


def test_told_to_stop(tmp_path):
    """In a bucket: the log of both attempts is there when the host is gone."""
    with bucket(tmp_path) as name:
        folder = storage.at(f"{name}/run")
        for _ in range(2):
            stopped = attempt(
                folder, "bash", "-c", "trap 'exit 42' TERM; echo ready; while :; do :; done"
            )
            assert stopped.stdout.readline() == b"ready\n"
            stopped.send_signal(signal.SIGTERM)
            assert stopped.wait(20) == 42
        assert log_marks.preemptions(folder / "log.txt") == 2
        assert log_marks.last(folder / "log.txt") == ("saved", "to be continued: ready")


def test_a_dead_hosts_lease_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "POLL", 0.05)
    monkeypatch.setattr(lease, "STALE", 1.0)
    told = dict(host="elsewhere", machine="m", pid=1, started=0, since=0.0, command="", token="t")
    (tmp_path / "lease.json").write_text(json.dumps(told | {"heartbeat": time.time()}))
    began = time.monotonic()
    assert host.run(tmp_path / "log.txt", tmp_path / "result.json", ["true"]) == 1
    assert 0.8 < time.monotonic() - began < 1.9, "the command began before the lease was old"
