"""Signals become a flag."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from blt_jax.runs.preemption import SAVED_EXIT_CODE, SIGNALS, StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_only_sets_the_flag(number):
    with StopSignal() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat themselves


def test_second_interrupt_does_not_wait():
    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignal():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_exit_code_of_the_run_contract():
    assert SAVED_EXIT_CODE == 42


LEAVING = """
import time
from blt_jax.runs import preemption

class Slow:
    def __del__(self):
        print("leaving", flush=True)
        time.sleep(1)

slow = Slow()
with preemption.StopSignal():
    pass
preemption.leave_undisturbed()
"""


def test_a_signal_while_python_leaves_changes_no_exit_code():
    process = subprocess.Popen([sys.executable, "-c", LEAVING], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "leaving\n"
    process.terminate()
    assert process.wait(60) == 0


BUSY = """
import hashlib, sys
from blt_jax.runs.lease import Lease
from blt_jax.runs.preemption import StopSignal

lease = Lease(sys.argv[1])
with lease, StopSignal(leave=lease.release) as stop:
    idle = stop.nothing_to_save() if sys.argv[2] == "idle" else __import__("contextlib").nullcontext()
    with idle:
        print("busy", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(sys.argv[3]))  # as a compiler: no Python until it returns
    print("requested", stop.requested, flush=True)
"""


@contextlib.contextmanager
def busy(folder, *arguments):
    command = [sys.executable, "-c", BUSY, folder, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "busy\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_with_nothing_to_save_a_signal_ends_a_long_call(tmp_path, number):
    with busy(tmp_path, "idle", str(10**8)) as process:
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == SAVED_EXIT_CODE and time.monotonic() - began < 10
        assert process.stdout.read() == "told to stop, with nothing to save\n"
    assert list(tmp_path.iterdir()) == []  # the lease is given back


def test_with_something_to_save_a_signal_waits(tmp_path):
    with busy(tmp_path, "at work", str(10**6)) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0 and process.stdout.read() == "requested True\n"


def test_told_before_there_was_nothing_to_save(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and not codes
        with stop.nothing_to_save():
            assert set(codes) == {SAVED_EXIT_CODE}
