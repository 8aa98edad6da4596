"""The bench command, as a person runs it; its slow suites by their parts."""

import json
import subprocess
import sys

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.data.store import write_entropies
from launch.bench import packing, shapes, train_step
from tests.data.corpus import made


def bench(*options):
    return subprocess.run(
        [sys.executable, "-m", "launch.bench", *options], capture_output=True, text=True
    )


def test_patching_quick(tmp_path):
    done = bench("--suite=patching", "--quick", f"--json={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    steps, facts = found["patching"]["tables"].values()
    assert all(row["MB_per_s_and_core"] > 0 for row in steps) and found["machine"]["cores"] >= 1
    assert abs(facts[0]["positions_per_patch"] / shapes.MEAN_PATCH - 1) < 0.02


def test_packing_of_a_store(tmp_path):
    store = made(tmp_path)
    rng = np.random.default_rng(0)
    write_entropies(tmp_path, "train", (rng.exponential(1.0, n + 2) for n in store.sizes), "random")
    ((row,),) = packing.measure(quick=True, store=tmp_path)["tables"].values()
    assert (
        row["patches"] == "entropy, 4.5"
        and row["index_MB/s"] > 0
        and 0 <= row["byte_waste_%"] < 100
    )
    assert abs(row["threshold"] - np.log(4.5)) < 0.1  # P(Exp(1) > log 4.5) = 1 / 4.5
    with pytest.raises(ConfigError, match="--suite=packing needs --store=STUDY/store"):
        packing.measure()


def test_unknown_suite_is_one_line():
    done = bench("--suite=speed")
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith(
        "error: --suite=speed: known are"
    )


def test_bytes_batch_has_the_asked_patches():
    batch = shapes.bytes_batch(2, 2048)
    patches = batch["patch_BxL"].max(axis=1) + 1
    np.testing.assert_allclose(2048 / patches, shapes.MEAN_PATCH, rtol=0.1)
    assert (batch["targets_BxL"][:, :-1] == batch["ids_BxL"][:, 1:]).all()


def test_exponent_of_a_square_law():
    by_length = {n: {"seconds": 1e-6 * n**2} for n in (512, 1024)} | {
        2048: {"failed": "out of memory"}
    }
    assert abs(train_step.growth_exponent(by_length, (512, 1024, 2048)) - 2) < 1e-9
    assert train_step.growth_exponent(by_length, (1024, 2048)) is None
