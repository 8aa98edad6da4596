"""The preprocess command as people run it: pieces in any order, kills, an entropy model, and
mistakes in one line.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from blt_jax.config import ConfigError, Stack
from blt_jax.data import parts, store
from blt_jax.data.parts import Piece
from blt_jax.data.shuffle import SPLITS
from blt_jax.data.store import EntropyParts, Store
from blt_jax.eval import entropy_scoring
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching
from blt_jax.record import fingerprint, to_dict
from blt_jax.runs.checkpoint import load_params
from blt_jax.runs.config import Run
from blt_jax.storage import write_json
from blt_jax.study import entropy_stage
from launch.bench.entropies import untrained
from tests.data.corpus import made
from tests.data.test_shuffle import contents
from tests.data.test_sources import lines, write

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Lm(Stack(1, 16, 2, window=6, ffn_multiple=8))


def preprocess(*options, wait=True):
    command = [sys.executable, "-m", "launch.preprocess", *map(str, options)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    if not wait:
        return process
    out, error = process.communicate()
    return process.returncode, out, error.strip().splitlines()[-1] if error.strip() else ""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The run folder of an entropy model that is as good as untrained."""
    folder = tmp_path_factory.mktemp("entropy_model")
    untrained(folder, CONFIG)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Parts of entropies and batches of a few documents."""
    monkeypatch.setattr(store, "ENTROPY_PART", 1500)
    monkeypatch.setitem(entropy_scoring.BATCH, "cpu", 8192)


def stores(folder):
    for split in SPLITS:
        made(folder, 30, split=split, seed=len(split))
    return {split: Store(folder, split) for split in SPLITS}


# ---------------------------------------------------------------- entropies in pieces


def test_entropies_in_pieces_are_the_same_files(tmp_path, model, small):
    whole = entropy_stage.entropies(model, stores(tmp_path / "1"), tmp_path / "1")
    assert len(EntropyParts(whole["train"], "x").ranges) > 3
    one = stores(tmp_path / "3")
    for piece in (2, 0, 1):
        entropy_stage.score(model, one, piece=Piece(piece, 3))
        assert Store(tmp_path / "3", "train").entropy_fingerprint == ""
    entropy_stage.merge_entropies(model, one, tmp_path / "3")
    assert contents(tmp_path / "3") == contents(tmp_path / "1")
    train = whole["train"]
    batch = {"ids_BxL": train.ids(7)[None], "segment_BxL": np.ones_like(train.ids(7))[None]}
    apply = jax.jit(network.apply, static_argnums=2)
    logp = jax.nn.log_softmax(apply(load_params(model)[1], batch, CONFIG))[0]
    want = -(np.exp(logp) * logp).sum(-1)
    np.testing.assert_allclose(train.entropies(7).astype(np.float32), want, atol=4e-3)


def test_a_kill_costs_the_parts_in_hand_only(tmp_path, model, small, monkeypatch):
    """Whatever was written before stays, and is not scored again."""
    want = entropy_stage.entropies(model, stores(tmp_path / "want"), tmp_path / "want")
    one, real, scored = stores(tmp_path / "out"), parts.Records.save, []

    def save(self, name, *args, **more):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(name)
        real(self, name, *args, **more)

    monkeypatch.setattr(parts.Records, "save", save)
    with pytest.raises(KeyboardInterrupt):
        entropy_stage.score(model, one)
    monkeypatch.setattr(parts.Records, "save", real)
    left = len(EntropyParts(one["train"], fingerprint("x")).ranges)
    asked = []
    score = entropy_scoring.score
    monkeypatch.setattr(
        entropy_scoring,
        "score",
        lambda *a, ranges, **more: asked.append(ranges) or score(*a, ranges=ranges, **more),
    )
    entropy_stage.entropies(model, one, tmp_path / "out")
    assert len(asked[0]) == left - 3 and contents(tmp_path / "out") == contents(tmp_path / "want")
    assert want["train"].entropy_fingerprint


def test_missing_pieces_of_entropies_are_named(tmp_path, model, small):
    one = stores(tmp_path)
    entropy_stage.score(model, one, piece=Piece(0, 3))
    with pytest.raises(
        ConfigError,
        match=r"train: .* of stage 'entropies' are missing: .* piece 1, 2 of 3$",
    ):
        entropy_stage.merge_entropies(model, one, tmp_path, piece=Piece(0, 3))


def test_entropies_of_another_model_stay_until_the_new_ones_are_there(tmp_path, model, small):
    before = entropy_stage.entropies(model, stores(tmp_path), tmp_path)
    first = before["train"].entropies(4)  # newlines
    entropy_stage.score(model, before, newline_reset=True, piece=Piece(0, 2))
    assert np.array_equal(Store(tmp_path, "train").entropies(4), first)
    after = entropy_stage.entropies(model, before, tmp_path, newline_reset=True)
    assert after["train"].entropy_fingerprint != before["train"].entropy_fingerprint
    assert len({p.name.rsplit("-", 1)[0] for p in (tmp_path / "train").glob("entropies-*")}) == 1


# ---------------------------------------------------------------- the command


def corpus(folder, count=2000):
    """A glob of 8 files of texts of 500 bytes."""
    folder.mkdir()
    texts = [json.loads(line)["text"] + " " + "word " * 100 for line in lines(count)]
    for i in range(8):
        write(folder / f"{i}.jsonl", [json.dumps({"text": text}) for text in texts[i::8]])
    return folder / "*.jsonl"


def killed(processes, folder, rng):
    """SIGKILLs the processes a moment after they begin to write; how many died of it."""
    before = set(folder.rglob("*"))
    while not set(folder.rglob("*")) - before and any(
        process.poll() is None for process in processes
    ):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.1))
    for process in processes:
        process.kill()
    return sum(process.wait() == -signal.SIGKILL for process in processes)


@pytest.mark.slow
def test_array_jobs_killed_at_will(tmp_path, model):
    """Processes of every stage, killed while they write and started again: the files of one
    undisturbed process.
    """
    glob, out, rng, kills = corpus(tmp_path / "in"), tmp_path / "out", random.Random(0), 0
    assert (
        preprocess(f"--input={glob}", f"--output={tmp_path / 'want'}", f"--entropy_model={model}")[
            0
        ]
        == 0
    )
    options = [f"--input={glob}", f"--output={out}", "--pieces=2"]
    scoring = f"--entropy_model={model}"
    for stage in (
        ["--stage=read"],
        ["--stage=sort"],
        ["--stage=merge"],
        ["--stage=entropies", scoring],
    ):
        start = lambda: [
            preprocess(*options, *stage, f"--piece={piece}", wait=False)  # noqa: B023
            for piece in ([0] if "merge" in stage[0] else [1, 0])  # noqa: B023
        ]
        kills += killed(start(), out, rng)
        for process in start():
            assert process.wait() == 0, process.communicate()
    assert preprocess(*options, "--stage=merge", scoring)[0] == 0
    assert kills and contents(out) == contents(tmp_path / "want")


def blt_run(folder):
    blt = Blt(Stack(1, 16, 2, window=4), Stack(1, 16, 2), Stack(1, 16, 2, window=4), hash_rows=10)
    run = to_dict(Run("blt", "blt", "s", blt, "", "", "", patching=Patching()))
    folder.mkdir()
    write_json(folder / "config.json", run)
    write_json(folder / "result.json", {"validation": {"bpb": 8.0}})
    return folder


def test_mistakes_are_one_clear_line(tmp_path, model):
    glob, out = corpus(tmp_path / "in", 200), tmp_path / "out"
    options = [f"--input={glob}", f"--output={out}"]
    assert preprocess(*options)[0] == 0
    before = contents(out)
    other = write(tmp_path / "other.jsonl", lines(50))
    for more, words in [
        (["--pieces=4"], "error: --pieces=4: say which --stage; --help shows them in order"),
        (
            ["--pieces=4", "--piece=4", "--stage=read"],
            "error: piece = 4: must be 0 to 3 (pieces = 4)",
        ),
        (
            ["--stage=entropies"],
            "error: --stage=entropies: give --entropy_model, the run folder of a byte LM",
        ),
        (
            [f"--entropy_model={tmp_path}"],
            "no entropy model that has finished training (config.json)",
        ),
        (
            [f"--entropy_model={blt_run(tmp_path / 'blt')}"],
            "the entropy model reads bytes, and this is a BLT",
        ),
        ([f"--input={other}"], "holds another corpus (input: "),
    ]:
        code, _, line = preprocess(*options, *more)
        assert code == 2 and line.startswith("error: ") and words in line, line
    assert contents(out) == before


@pytest.mark.skipif(
    not Path("/dev/full").exists() or os.getuid() != 0, reason="needs to mount a small disk"
)
def test_a_full_disk_is_one_clear_line(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
    ).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        glob = corpus(tmp_path / "in")
        code, _, line = preprocess(f"--input={glob}", f"--output={disk / 'store'}")
        assert code == 2 and re.search(
            "the disk is full.*; free some space, then run the same", line
        ), line
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert preprocess(f"--input={glob}", f"--output={disk / 'store'}")[0] == 0
        preprocess(f"--input={glob}", f"--output={tmp_path / 'want'}")
        assert contents(disk / "store") == contents(tmp_path / "want")
    finally:
        subprocess.run(["umount", disk], check=True)
