"""`blt_jax.load`: run folders and Hugging Face directories, bits of long texts, generation, clear
refusals.
"""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import blt_jax
from blt_jax.config import ConfigError, Stack
from blt_jax.data import bpe, vocab
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import huggingface
from blt_jax.patching import Patching
from blt_jax.record import to_dict
from blt_jax.runs.checkpoint import Checkpoints
from blt_jax.runs.config import Run
from tests.interop.test_round_trip import random_params

LOCAL = Stack(1, 16, 2, ffn=24, window=8)
BLT = Blt(LOCAL, Stack(1, 24, 2, ffn=40), LOCAL, hash_sizes=(3,), hash_rows=50)
TEXT = bytes(range(32, 96)) * 3


def save_run(folder, config, patching=None, tokenizer="", positions=64):
    """A run folder as training leaves it, with random weights."""
    run = Run(
        "x", "x", "x", config, "../../store", "rows", "rows", patching=patching, tokenizer=tokenizer
    )
    (folder / "rows").mkdir(parents=True)
    (folder / "rows" / "header.json").write_text(
        json.dumps({"format": 1, "row_positions": positions})
    )
    (folder / "config.json").write_text(json.dumps(to_dict(run)))
    params = random_params(config)
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, {"params": params}, {})
    checkpoints.close()
    return params


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    save_run(folder / "entropy_model", Lm(LOCAL))
    params = save_run(folder / "runs" / "patches", BLT, Patching("entropy", threshold=4.9))
    bpe.train([TEXT], 300, folder / "tokenizer.json")
    tokens = Lm(
        Stack(1, 16, 2, ffn=24), vocab=bpe.Bpe(folder / "tokenizer.json").vocab, unit="token"
    )
    save_run(folder / "runs" / "tokens", tokens, tokenizer="../../tokenizer.json")
    return folder, params


def nats(logits_LxV, targets_L):
    logits = logits_LxV.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    logp = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return -logp[np.arange(len(targets_L)), targets_L]


def test_run_folder_rounds_entropies_as_training_does(study):
    folder, params = study
    model = blt_jax.load(folder / "runs" / "patches")
    assert model.config == BLT and model.context == 64 and model.patcher == Lm(LOCAL)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    ids = vocab.encode(TEXT)[None]
    entropies = model.entropies(ids)
    assert entropies.dtype == np.float32 and np.array_equal(
        entropies, entropies.astype(np.float16).astype(np.float32)
    )
    lengths = model.patch_lengths(ids)
    flags = np.append([True, True], entropies[0, 1:] > np.float32(4.9))
    np.testing.assert_array_equal(lengths[0], np.diff(np.flatnonzero(flags), append=ids.size + 1))


def test_bits_score_every_byte_once_in_overlapping_windows(study):
    model = blt_jax.load(study[0] / "runs" / "patches")
    ids = vocab.encode(TEXT[:100])  # 101 inputs: windows 0..64, 32..96, 64..101
    parts = [
        nats(model.logits(ids[None, b:e])[0], ids[b + 1 : e + 1])[s:]
        for b, s, e in ((0, 0, 64), (32, 32, 96), (64, 32, 101))
    ]
    scored = np.concatenate(parts)
    assert scored.size == 101 and abs(model.bits(TEXT[:100]) - scored.sum() / np.log(2)) < 1e-3
    short = nats(model.logits(vocab.encode(b"ab")[None, :-1])[0], vocab.encode(b"ab")[1:])
    assert abs(model.bits(b"ab") - short.sum() / np.log(2)) < 1e-4


def test_tokens(study):
    model = blt_jax.load(study[0] / "runs" / "tokens")
    ids = bpe.Bpe(study[0] / "tokenizer.json").encode(TEXT[:150])
    scored = nats(model.logits(ids[None, :-1])[0], ids[1:]).sum() / np.log(2)
    assert ids.size <= 65 and abs(model.bits(TEXT[:150]) - scored) < 1e-3
    new = model.generate([b"!#"], 9, temperature=1.0, seed=3)[0]
    assert len(new) <= 9 and new == model.generate([b"!#"], 9, temperature=1.0, seed=3)[0]
    with pytest.raises(ConfigError, match="a plain LM has no patches"):
        model.patch_lengths(ids[None])


def test_generation_beyond_the_context_and_ends(study):
    """A byte LM that always says the same: "a", or EOS."""
    model = blt_jax.load(study[0] / "entropy_model")
    model.params = jax.tree.map(np.zeros_like, model.params)
    model.params["norm"]["scale"] += 1
    model.params["embedding"] += 1
    model.params["head"]["kernel"][:, ord("a") + 4] = 1
    assert model.generate([b"x" * 63, b""], 5) == [b"aaaaa", b"aaaaa"]
    assert model.generate([b"x"], 5, stop=b"aaa") == [b""]
    assert model.generate([b"x"], 5, stop=[b"b", b"aa"], top_p=0.5, temperature=0.7) == [b""]
    assert model.generate([b"x"], 0) == [b""] and model.generate([], 5) == []
    ends = blt_jax.load(study[0] / "entropy_model")
    ends.params = jax.tree.map(np.copy, model.params)
    ends.params["head"]["kernel"][:, 2] = 2
    assert ends.generate([b"x"], 5) == [b""]
    with pytest.raises(ConfigError, match="top_p = 0"):
        model.generate([b"x"], 5, top_p=0)
    with pytest.raises(ConfigError, match="stop = "):
        model.generate([b"x"], 5, stop=[b""])


def test_refusals(study, tmp_path):
    folder = study[0]
    model = blt_jax.load(folder / "runs" / "patches")
    for ids, line in (
        ([[1, 300]], "ids: must be 0 to 259"),
        ([1, 2], r"must be integers \[B, L\]"),
        ([[0.5]], "integers"),
    ):
        with pytest.raises(ConfigError, match=line):
            model.logits(np.array(ids))
    with pytest.raises(ConfigError, match="add up to 3"):
        model.logits(np.array([[1, 70]]), [[1, 1]])
    with pytest.raises(ConfigError, match="config.json: no such file or directory"):
        blt_jax.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="neither a run nor a Hugging Face model"):
        blt_jax.load(tmp_path)
    huggingface.save(tmp_path / "hf", dataclasses.replace(BLT), random_params(BLT))
    plain = blt_jax.load(tmp_path / "hf")
    with pytest.raises(ConfigError, match="has no entropy model"):
        plain.entropies(np.array([[1, 70]]))
    np.testing.assert_array_equal(plain.patch_lengths(np.array([[1, 70, 71]])), [[1, 1, 1, 1]])


def test_import_is_light():
    code = "import sys, blt_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules; blt_jax.load"
    subprocess.run([sys.executable, "-c", code], check=True)
