"""The bench command, as a person runs it; its slow suites by their parts."""

import json
import subprocess
import sys

import numpy as np

from launch.suites import shapes, train_step


def bench(*options):
    return subprocess.run([sys.executable, "-m", "launch.bench", *options], capture_output=True, text=True)


def test_patching_quick(tmp_path):
    done = bench("--suite=patching", "--quick", f"--json={tmp_path / 'out.json'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    steps, facts = found["patching"]["tables"].values()
    assert all(row["MB_per_s_and_core"] > 0 for row in steps) and found["machine"]["cores"] >= 1
    assert abs(facts[0]["positions_per_patch"] / shapes.MEAN_PATCH - 1) < 0.02


def test_unknown_suite_is_one_line():
    done = bench("--suite=speed")
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith("error: --suite=speed: known are")


def test_bytes_batch_has_the_asked_patches():
    batch = shapes.bytes_batch(2, 2048)
    patches = batch["patch_BxL"].max(axis=1) + 1
    np.testing.assert_allclose(2048 / patches, shapes.MEAN_PATCH, rtol=0.1)
    assert (batch["targets_BxL"][:, :-1] == batch["ids_BxL"][:, 1:]).all()


def test_exponent_of_a_square_law():
    by_length = {n: {"seconds": 1e-6 * n**2} for n in (512, 1024)} | {2048: {"failed": "out of memory"}}
    assert abs(train_step._slope(by_length, (512, 1024, 2048)) - 2) < 1e-9
    assert train_step._slope(by_length, (1024, 2048)) is None
