"""The plan command: what it prints and writes, what it refuses, and a slice compiled without
libtpu.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blt_jax.config import ConfigError, Mesh
from blt_jax.flops import hardware
from blt_jax.parallel import topology
from blt_jax.record import build
from blt_jax.study import forecast, grid
from blt_jax.study.config import Study
from experiments import blt_1t, quickstart
from tests import QUICK

ROOT = Path(__file__).resolve().parents[2]


def plan(*arguments, **environment):
    command = [sys.executable, "-m", "launch.plan", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "250"} | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)


def test_the_8b_grid_in_seconds(tmp_path):
    """Every line of the issue is in the JSON; no device, no jax."""
    out = tmp_path / "plan.json"
    began = time.monotonic()
    made = plan(
        "--config=experiments/compute_optimal.py:8b",
        "--hardware=tpu-v5p",
        "--devices=64",
        "--details",
        f"--json={out}",
    )
    assert made.returncode == 0, made.stderr
    assert time.monotonic() - began < 20
    runs = json.loads(out.read_text())
    assert (
        len(runs) == 10
        and "assumed, not measured" in made.stdout
        and "Parameters by part" in made.stdout
    )
    for run in runs:
        ahead = run["forecast"]
        assert run["name"] in made.stdout
        assert run["cost"]["parameters"]["latent"] > 6e9 and ahead["mesh"] == {
            "data": 1,
            "fsdp": 64,
            "tensor": 1,
        }
        assert ahead["fewest_devices"] in (2, 4)
        assert ahead["fits"] and ahead["memory"]["total"] == pytest.approx(
            sum(v for k, v in ahead["memory"].items() if k != "total")
        )
        hours = run["cost"]["train_flops"]["exact"] / (64 * 459e12 * 0.4 * 3600)
        assert ahead["hours"] == pytest.approx(hours) and ahead["device_hours"] == pytest.approx(
            64 * hours
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--hardware=h10"], "hardware = 'h10': no such device; did you mean 'h100'?"),
        (["--runs=*-9b-*"], "runs = '*-9b-*': matches none of 27 runs such as blt-5e10-tiny-s0"),
        (["--compile=v5p-128"], "compile = 'v5p-128': write KIND:CHIPS such as v5e:4x4"),
        (
            ["--hardware=h100", "--devices=4"],
            "blt-5e10-tiny-s0: train.rows = 2 is no multiple of 4, what 4 devices take",
        ),
        (["--workdir=nowhere"], "workdir = 'nowhere': holds no plan.json yet"),
        (
            ["--hardware=h100", "--devices=6", "--config.mesh.fsdp=4"],
            "mesh = data=-1 x fsdp=4 x tensor=1: does not fit 6",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    made = plan("--config=experiments/quickstart.py", *arguments)
    assert made.returncode == 2 and made.stderr.startswith("error: ") and message in made.stderr
    assert made.stderr.count("\n") == 1


def test_measured_sizes_of_a_study(tmp_path):
    study = build(Study, quickstart.get_config().to_dict())
    facts = grid.assumed_facts(study)
    told = {name: fact.__dict__ | {"label": name, "measured": True} for name, fact in facts.items()}
    told["bpe"]["bytes_per_unit"] = 2.75
    plain = lambda x: x.__dict__ if hasattr(x, "__dict__") else x
    (tmp_path / "plan.json").write_text(json.dumps({"facts": told}, default=plain))
    made = plan("--config=experiments/quickstart.py", f"--workdir={tmp_path}")
    assert made.returncode == 0, made.stderr
    assert "2.75/token" in made.stdout and "assumed" not in made.stdout


def test_the_devices_of_a_mesh():
    """One rule for plans and for runs."""
    assert Mesh().sizes(8) == (8, 1, 1) and Mesh(2, -1, 2).sizes(8) == (2, 2, 2)
    assert Mesh(2, 2, 2).sizes(8) == (2, 2, 2)
    for mesh, devices in ((Mesh(2, 2, 2), 16), (Mesh(-1, 4), 6), (Mesh(-1, 4), 2)):
        with pytest.raises(ConfigError, match=f"does not fit {devices} devices; set one axis to"):
            mesh.sizes(devices)


def test_topologies():
    assert topology.parse("v5p:2x2x4").devices == 16 and topology.parse("tpu7x:2x2x1").devices == 8
    assert topology.parse("v5e:4x4").hardware.name == "tpu-v5e"
    for wrong in ("v5e", "v5e:4", "v9:2x2", "v5p:2x2x"):
        with pytest.raises(ConfigError, match="write KIND:CHIPS"):
            topology.parse(wrong)


def test_fewest_devices_hold_it_and_half_of_them_do_not():
    study = build(Study, blt_1t.get_config().to_dict())
    machine = forecast.Machine(hardware.by_name("tpu-v5e"), 1, 0.4)
    for one in grid.plan(study, grid.assumed_facts(study)):
        count = forecast.fewest_devices(one, machine)
        room = lambda n, one=one: forecast.forecast(one, forecast.Machine(machine.device, n, 0.4))[
            "memory"
        ]["total"]
        assert room(count) <= 0.9 * machine.device.hbm_bytes < room(count // 2)
        pinned = dataclasses.replace(
            one, run=dataclasses.replace(one.run, mesh=Mesh(data=-1, fsdp=4 * count))
        )
        assert forecast.fewest_devices(pinned, machine) == 4 * count


@pytest.mark.slow
def test_a_slice_without_its_compiler(tmp_path):
    """Forced host devices: a word about it, the shardings' bytes, the collectives. With libtpu: the
    TPU's own.
    """
    out = tmp_path / "plan.json"
    made = plan(
        "--config=experiments/quickstart.py",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=-1",
        "--config.train.rows=8",
        "--config.train.device_rows=1",
        "--runs=blt-5e11-small-s0",
        "--compile=v5e:2x2",
        f"--json={out}",
        XLA_FLAGS=QUICK,
    )
    assert made.returncode == 0, made.stderr
    (run,) = json.loads(out.read_text())
    program = run["compiled"]
    assert ("libtpu is not installed" in made.stdout) == (not topology.has_compiler())
    assert program["devices"] == 4 and program["topology"] == "v5e:2x2"
    assert program["compiler"] == ("tpu" if topology.has_compiler() else "host")
    state = sum(
        run["forecast"]["memory"][part] for part in ("parameters", "moments", "table_moments")
    )
    assert state < program["arguments"] < 1.2 * state + 8 * 512 * 8 * 4
    assert program["collectives"] and all(
        one["bytes"] > 0 for one in program["collectives"].values()
    )
