"""What comes back when the newest checkpoint is damaged, the disk full or the folder not ours to
write.
"""

import json
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.record import to_dict
from blt_jax.runs.checkpoint import Checkpoints, bit_sums, load_params
from blt_jax.train.metrics import Metrics
from tests.bucket import bucket
from tests.faults import runs

# What a library's coroutines say when their file turns out to be damaged.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def state(step):
    key = jax.random.fold_in(jax.random.key(0), step)
    weights = {"w": jax.random.normal(key, (256, 64)), "b": jnp.full((8,), float(step))}
    return {
        "params": weights,
        "moments": jax.tree.map(lambda x: x * 2, weights),
        "step": jnp.int32(step),
    }


def abstract():
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), state(0))


def saved(folder, steps, **how):
    checkpoints = Checkpoints(folder, **how)
    for step in steps:
        checkpoints.save(step, state(step), {"text_bytes": step})
    checkpoints.close()


def restored(folder, **how):
    checkpoints = Checkpoints(folder, **how)
    found = checkpoints.restore(abstract())
    checkpoints.close()
    return found


def largest(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and "state" in p.parts]
    return max(files, key=lambda p: p.stat().st_size)


def truncate(folder):
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def zeros(folder):
    path = largest(folder)
    path.write_bytes(bytes(path.stat().st_size))


def flip(folder):
    path = largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def missing(folder):
    largest(folder).unlink()


def no_host(folder):
    shutil.rmtree(folder / "host")


def no_manifest(folder):
    for path in folder.rglob("manifest*"):
        path.unlink()


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def another(folder):
    """Whole and readable, but not what was saved."""
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.with_name("1") / "state", folder / "state")


DAMAGES = (truncate, zeros, flip, missing, no_host, no_manifest, empty, another)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_newest_checkpoint_falls_back_on_the_one_before(tmp_path, capsys, damage):
    saved(tmp_path, (1, 2, 3), keep=3)
    damage(tmp_path / "checkpoints" / "3")
    step, found, host = restored(tmp_path)
    assert step == 2 and host == {"text_bytes": 2}
    jax.tree.map(np.testing.assert_array_equal, found, state(2))
    assert (
        "checkpoint of step 3 cannot be read" in (told := capsys.readouterr().out)
        and "step 2" in told
    )
    assert (tmp_path / "checkpoints" / "damaged-3").exists()  # for whoever wants to look
    saved(tmp_path, (3, 4))  # the run comes by that step again
    assert restored(tmp_path)[0] == 4


def test_a_save_that_was_killed_is_no_checkpoint(tmp_path):
    saved(tmp_path, (1, 2))
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "2", folder / "3.orbax-checkpoint-tmp-17")
    truncate(folder / "3.orbax-checkpoint-tmp-17")
    assert restored(tmp_path)[0] == 2
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]


def test_none_that_can_be_read_is_an_error_not_a_new_beginning(tmp_path):
    saved(tmp_path, (1, 2))
    for step in (1, 2):
        truncate(tmp_path / "checkpoints" / str(step))
    with pytest.raises(
        ConfigError, match="none of 2 checkpoints can be read; delete it to begin anew"
    ):
        restored(tmp_path)
    assert (tmp_path / "checkpoints" / "2").exists()


def test_newest_and_every_nth_are_kept(tmp_path):
    saved(tmp_path, range(1, 10), keep=2, keep_every=4)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "8", "9"]
    assert restored(tmp_path, keep=2, keep_every=4)[0] == 9


def test_a_model_comes_from_the_newest_that_is_whole(tmp_path, capsys):
    saved(tmp_path, (1, 2))
    storage.write_json(tmp_path / "config.json", to_dict(runs.run("bytes")))
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[1], state(2)["params"])
    assert capsys.readouterr().out == ""
    another(tmp_path / "checkpoints" / "2")
    run, params = load_params(tmp_path)
    assert run == runs.run("bytes") and all(isinstance(x, np.ndarray) for x in params.values())
    jax.tree.map(np.testing.assert_array_equal, params, state(1)["params"])
    told = "checkpoint of step 2 cannot be read (its content is not what was saved): falling back on step 1"
    assert told in capsys.readouterr().out


def test_bit_sums_see_what_changes():
    tree = state(1)
    other = tree | {"params": tree["params"] | {"b": tree["params"]["b"].at[3].add(1e-6)}}
    swapped = tree | {"params": tree["moments"], "moments": tree["params"]}
    sums = [
        {part: int(value) for part, value in bit_sums(t).items()} for t in (tree, other, swapped)
    ]
    assert sums[0]["params"] != sums[1]["params"] and sums[0]["moments"] == sums[1]["moments"]
    assert sums[2] == sums[0] | {"params": sums[0]["moments"], "moments": sums[0]["params"]}
    for same in (jax.jit(bit_sums)(tree), bit_sums(jax.tree.map(np.asarray, tree))):
        assert {part: int(value) for part, value in same.items()} == sums[0]


def mounted(folder, options):
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small disk here: {made.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A disk of 600 KiB."""
    mounted(tmp_path / "disk", "size=600k")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", tmp_path / "disk"], check=True)


def test_a_full_disk_stops_with_one_line_and_the_last_checkpoint_intact(disk):
    with pytest.raises(
        ConfigError, match="cannot save, the disk is full; what was saved before is intact"
    ):
        saved(disk, range(1, 20), keep=20)
    step, found, _ = restored(disk, keep=20)
    assert step >= 1
    jax.tree.map(np.testing.assert_array_equal, found, state(step))


def test_a_read_only_folder_stops_with_one_line_and_the_last_checkpoint_intact(disk):
    saved(disk, (1,))
    checkpoints = Checkpoints(disk)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(ConfigError, match="cannot save, the file system is read-only"):
        checkpoints.save(2, state(2), {})
        checkpoints.close()
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert restored(disk)[0] == 1
    assert json.loads(json.dumps(restored(disk)[2])) == {"text_bytes": 1}


def test_in_a_bucket(tmp_path):
    """Saved by one process and read by another; an object that is gone costs its checkpoint, which
    is moved aside.
    """
    with bucket(tmp_path) as name:
        run = storage.at(f"{name}/a run")
        saved(run, (1, 2, 3), keep=2)
        folder = run / "checkpoints"
        assert sorted(p.name for p in folder.iterdir()) == ["2", "3"]
        assert restored(run)[0] == 3
        max((folder / "3" / "state" / "d").iterdir(), key=storage.size).unlink()
        step, found, host = restored(run)
        assert step == 2 and host == {"text_bytes": 2}
        assert all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(state(2))))
        assert sorted(p.name for p in folder.iterdir()) == ["2", "damaged-3"]
        saved(run, (3,))
        assert restored(run)[0] == 3


def test_metrics_in_a_bucket(tmp_path):
    """What was logged before a save is there after a kill; what came after the step that is resumed
    is not.
    """
    with bucket(tmp_path) as name:
        run = storage.at(f"{name}/a run")
        first = Metrics(run, 0)
        first.write({"step": 1, "bpb": 3.0})
        first.write({"step": 2, "bpb": 2.5})
        first.flush()
        first.write({"step": 3, "bpb": 2.0})  # lost: nobody closes it
        second = Metrics(run, 1)
        assert second.last == {"step": 1, "bpb": 3.0}
        second.write({"step": 2, "bpb": 2.25})
        second.close()
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert lines == [{"step": 1, "bpb": 3.0}, {"step": 2, "bpb": 2.25}]
        assert list((run / "tensorboard").iterdir())
