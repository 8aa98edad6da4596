"""Programs of tests on eight devices, which a process of this machine is given."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import QUICK

ROOT = Path(__file__).resolve().parents[1]


def told(module):
    """What `python -m MODULE` prints, from JSON."""
    flags = f"--xla_force_host_platform_device_count=8 {QUICK}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
