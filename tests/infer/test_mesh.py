"""Generation by a model that lies over eight devices, BLT and token LM: the ids of the model on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import QUICK

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def told():
    """What `eight_devices` prints, by model and mesh."""
    flags = f"--xla_force_host_platform_device_count=8 {QUICK}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.infer.eight_devices"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return {(one["model"], one["mesh"]): one for one in json.loads(done.stdout)}


@pytest.mark.parametrize("mesh", ["fsdp=8", "tensor=4 x data=2"])
@pytest.mark.parametrize("model", ["BLT", "token LM"])
def test_a_split_model_writes_the_same(told, model, mesh):
    alone, split = told[model, "one device"], told[model, mesh]
    assert alone["split"] == 0 < split["split"]
    assert len({tuple(row) for row in alone["ids"]}) == len(alone["ids"]) and all(len(set(r)) > 3 for r in alone["ids"])
    assert split["ids"] == alone["ids"]
