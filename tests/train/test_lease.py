"""One live process per folder; dead ones do not block it."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from blt_jax import storage
from blt_jax.runs import lease
from blt_jax.runs.lease import Lease, LeaseHeld
from blt_jax.runs.run_files import LEASE
from tests.bucket import bucket

HOLD = """
import sys, time
from blt_jax.runs.lease import Lease
with Lease(sys.argv[1], "study"):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def rewrite(folder, **changes):
    path = folder / LEASE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_second_process_is_refused_until_the_first_is_dead(tmp_path):
    process = start_holder(tmp_path)
    try:
        with pytest.raises(LeaseHeld) as error, Lease(tmp_path, "study"):
            pass
        message = str(error.value)
        assert f"study {tmp_path} is in use by process {process.pid} on " in message
        assert " since 20" in message and f"kill {process.pid}" in message and "\n" not in message
        assert lease.holder(tmp_path).pid == process.pid
    finally:
        process.kill()
    # Dead but not yet reaped, it is a zombie: no holder either.
    wait_for(lambda: lease.holder(tmp_path) is None)
    process.wait()
    began = time.monotonic()
    with Lease(tmp_path, "study"):
        assert lease.holder(tmp_path).pid != process.pid
    assert time.monotonic() - began < lease.STALE / 2


def test_released_on_exit_and_on_error(tmp_path):
    for error in (None, KeyError):
        try:
            with Lease(tmp_path / "new"):
                assert (tmp_path / "new" / LEASE).exists()
                if error:
                    raise error
        except KeyError:
            pass
        assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(not lease._machine(), reason="needs /proc")
def test_a_reused_pid_is_not_the_holder(tmp_path):
    with Lease(tmp_path, heartbeat=60):
        rewrite(tmp_path, started=12345)  # our own pid, but another process
        assert lease.holder(tmp_path) is None
        with Lease(tmp_path):
            pass


@pytest.mark.parametrize("elsewhere", [{"host": "far"}, {"machine": "another boot"}])
def test_elsewhere_only_the_heartbeat_counts(tmp_path, elsewhere):
    with Lease(tmp_path, heartbeat=60):
        dead_pid = 2**22 + 1  # above Linux's largest
        rewrite(tmp_path, pid=dead_pid, heartbeat=time.time() - 50, **elsewhere)
        with pytest.raises(LeaseHeld, match="wait 60 s"), Lease(tmp_path):
            pass
        rewrite(tmp_path, heartbeat=time.time() - 70)
        with Lease(tmp_path, heartbeat=0.1):
            assert lease.holder(tmp_path).local


def test_a_holder_elsewhere_with_a_late_clock_is_noticed(tmp_path, monkeypatch):
    with Lease(tmp_path, heartbeat=60):
        rewrite(tmp_path, host="far", heartbeat=time.time() - 1000)
        sleep = time.sleep

        def beat_meanwhile(seconds):
            rewrite(tmp_path, heartbeat=time.time())
            sleep(seconds)

        monkeypatch.setattr(time, "sleep", beat_meanwhile)
        with pytest.raises(LeaseHeld), Lease(tmp_path, heartbeat=0.1):
            pass


def test_of_two_takers_one_stays(tmp_path, monkeypatch):
    (tmp_path / LEASE).write_text(json.dumps(dead_holder()))
    rival = dead_holder() | dataclasses.asdict(own_holder()) | {"token": "rival"}
    sleep = time.sleep

    def rival_writes_last(seconds):
        if seconds == lease._SETTLE:
            (tmp_path / LEASE).write_text(json.dumps(rival))
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", rival_writes_last)
    with pytest.raises(LeaseHeld), Lease(tmp_path):
        pass
    assert json.loads((tmp_path / LEASE).read_text())["token"] == "rival"


def test_heartbeat_is_written_and_a_lost_lease_is_noticed(tmp_path):
    with Lease(tmp_path, heartbeat=0.05) as held:
        see_it_beat_and_lose(held)
    assert json.loads((tmp_path / LEASE).read_text())["token"] == "other"  # not ours to remove


def test_an_unreadable_lease_counts_by_its_age(tmp_path):
    path = tmp_path / LEASE
    path.write_text("")
    with pytest.raises(LeaseHeld, match="unknown host"), Lease(tmp_path):
        pass

    os.utime(path, (time.time() - 100, time.time() - 100))
    with Lease(tmp_path, heartbeat=0.1):
        assert lease.holder(tmp_path).local


def test_a_full_disk_leaves_no_lease_behind(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fdopen", no_space)
    with pytest.raises(OSError, match="No space"), Lease(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_in_a_bucket(tmp_path, monkeypatch):
    with bucket(tmp_path) as name:
        run = storage.at(f"{name}/run")
        with Lease(run):
            assert lease.holder(run).pid == os.getpid()
            with pytest.raises(LeaseHeld, match="gs://bucket/run is in use by process"):
                Lease(run).__enter__()
        assert not run.exists() and lease.holder(run) is None
        dead = dead_holder() | {"host": "elsewhere", "heartbeat": time.time() - 2 * lease.STALE}
        storage.write_json(run / LEASE, dead)
        with Lease(run, heartbeat=0.1) as held:
            see_it_beat_and_lose(held)


def test_a_stalled_writer_takes_nothing_back_in_a_bucket(tmp_path, monkeypatch):
    with bucket(tmp_path) as name:
        run = storage.at(f"{name}/run")
        path = run / LEASE
        dead = dead_holder() | {"host": "elsewhere", "heartbeat": time.time() - 2 * lease.STALE}
        rival = dataclasses.asdict(own_holder()) | {"host": "far", "token": "rival"}
        read = lease._read

        def rival_takes_it_right_after(path):
            found = read(path)
            if found is not None and found.token != "rival" and stalls.is_set():
                storage.write_json(path, rival)
            return found

        stalls = threading.Event()
        monkeypatch.setattr(lease, "_read", rival_takes_it_right_after)
        with Lease(run, heartbeat=0.1) as held:
            stalls.set()
            wait_for(lambda: held._usurper is not None)
            assert json.loads(path.read_text())["token"] == "rival"
        stalls.clear()
        path.unlink()
        with Lease(run, heartbeat=60):
            stalls.set()  # it is read once more, to be given back
        assert json.loads(path.read_text())["token"] == "rival"
        storage.write_json(path, dead)
        with pytest.raises(LeaseHeld, match="far"), Lease(run, heartbeat=0.1):
            pass
        assert json.loads(path.read_text())["token"] == "rival"


def see_it_beat_and_lose(held):
    path = held.folder / LEASE
    first = lease.holder(held.folder).heartbeat
    wait_for(lambda: lease.holder(held.folder).heartbeat > first)
    held.check()
    usurper = dataclasses.asdict(lease.holder(held.folder)) | {"token": "other", "host": "far"}

    def lost():
        storage.write_json(path, usurper)  # again, if a beat was just under way
        time.sleep(0.3)
        return held._usurper is not None

    wait_for(lost)
    with pytest.raises(LeaseHeld, match="far"):
        held.check()


def wait_for(happened, seconds=60):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def own_holder():
    now = time.time()
    pid = os.getpid()
    return lease.Holder(
        socket.gethostname(), lease._machine(), pid, lease._start_ticks(pid), now, now, "x", "own"
    )


def dead_holder():
    return dataclasses.asdict(own_holder()) | {"pid": 2**22 + 1, "token": "dead"}
