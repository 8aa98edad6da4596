"""What `eight_devices` tells, made once for all tests of this folder (and, under xdist, for all processes)."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import QUICK

ROOT = Path(__file__).resolve().parents[2]
FLAGS = f"--xla_force_host_platform_device_count=8 {QUICK}"


@pytest.fixture(scope="session")
def told(tmp_path_factory, worker_id):
    """What `eight_devices` prints."""
    base = tmp_path_factory.getbasetemp()
    path = (base if worker_id == "master" else base.parent) / "eight_devices.json"
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            env = os.environ | {"XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, "-m", "tests.parallel.eight_devices"]
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, done.stderr[-3000:]
            path.write_text(done.stdout)
    return json.loads(path.read_text())
