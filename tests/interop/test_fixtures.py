"""The stored fixtures through `blt_jax.load`: entropies, patches, logits, greedy generation,
bfloat16.
"""

import jax.numpy as jnp
import numpy as np
import pytest

import blt_jax
from blt_jax.families import network
from blt_jax.interop import huggingface
from tests.reference import dense_blt, hf_fixture

TOLERANCE = 5e-5  # measured: below 6e-6
# Largest error of a logit of `blt_entropy` in bfloat16 against float32: measured 0.085, where
# logits reach 4.0.
BFLOAT16 = 0.12


@pytest.mark.parametrize(
    "name", [name for name in hf_fixture.BLT_NAMES if name != "blt_explicit_lengths"]
)
def test_entropies_and_patch_lengths(name, tmp_path):
    _, _, io, _ = hf_fixture.load(name)
    model = blt_jax.load(hf_fixture.directory(name, tmp_path))
    cases = [case for case in hf_fixture.cases(io) if f"{case}.entropies" in io]
    rows = [row for case in cases for row in io[f"{case}.input_ids"]]
    entropies, lengths = (
        model._entropies(rows),
        model._lengths(rows),
    )  # rows of all cases at once: one program
    theirs = [
        (e, n[n > 0])
        for case in cases
        for e, n in zip(io[f"{case}.entropies"], io[f"{case}.patch_lengths"], strict=True)
    ]
    error = max(np.abs(ours - e).max() for ours, (e, _) in zip(entropies, theirs, strict=True))
    assert error < TOLERANCE
    for ours, (_, n) in zip(lengths, theirs, strict=True):
        np.testing.assert_array_equal(ours, n)
    print(name, f"entropies {error:.1e}")


def test_rows_of_a_batch(tmp_path):
    """The public methods, EOS inside rows."""
    _, _, io, _ = hf_fixture.load("blt_documents")
    model = blt_jax.load(hf_fixture.directory("blt_documents", tmp_path))
    ids = io["batch.input_ids"]
    assert model.patch_lengths(ids).dtype == np.int32 and model.entropies(ids).dtype == np.float32
    np.testing.assert_array_equal(model.patch_lengths(ids), io["batch.patch_lengths"])
    assert np.abs(model.entropies(ids) - io["batch.entropies"]).max() < TOLERANCE
    logits = model.logits(ids)
    assert logits.shape == io["batch.logits"].shape and logits.dtype == np.float32
    assert np.abs(logits - io["batch.logits"]).max() < TOLERANCE


def test_greedy_bytes(tmp_path):
    _, _, io, meta = hf_fixture.load("blt_entropy")
    model = blt_jax.load(hf_fixture.directory("blt_entropy", tmp_path))
    known = [io[f"{one['name']}.new_ids"][0] for one in meta["greedy"]]
    new = model.generate([bytes.fromhex(one["prompt_hex"]) for one in meta["greedy"]], 40)
    assert new == [bytes((ids - 4).astype(np.uint8)) for ids in known]
    text = new[0]
    stopped = model.generate(
        [bytes.fromhex(meta["greedy"][0]["prompt_hex"])], 40, stop=[b"never", text[5:7]]
    )
    assert stopped == [text[: text.find(text[5:7])]]


def test_llama(tmp_path):
    _, _, io, _ = hf_fixture.load("llama_gqa")
    model = blt_jax.load(hf_fixture.directory("llama_gqa", tmp_path))
    error = np.abs(model.logits(io["input_ids"]) - io["logits"]).max()
    assert error < TOLERANCE
    assert model.generate_ids([io["greedy.prompt_ids"][0]], 40) == [
        io["greedy.new_ids"][0].tolist()
    ]
    print(f"llama_gqa logits {error:.1e}")


@pytest.mark.parametrize(
    "name", ["blt_encoder_all_layers", "blt_documents", "blt_entropy_first_layer"]
)
def test_the_dense_reference_is_right(name):
    config, weights, io, _ = hf_fixture.load(name)
    blt, _ = hf_fixture.configs(config)
    case = "docs_b" if name == "blt_documents" else "utf8"
    ids, lengths = io[f"{case}.input_ids"][0], io[f"{case}.patch_lengths"][0]
    logits = dense_blt.logits(hf_fixture.params(weights, blt), blt, ids, lengths[lengths > 0])
    assert np.abs(logits - io[f"{case}.logits"][0]).max() < TOLERANCE


def test_bfloat16(tmp_path):
    _, _, io, _ = hf_fixture.load("blt_entropy")
    found = huggingface.load(hf_fixture.directory("blt_entropy", tmp_path))
    cases = hf_fixture.cases(io)
    batches = [
        hf_fixture.batch(io[f"{case}.input_ids"], io[f"{case}.patch_lengths"]) for case in cases
    ]
    compute = network.Compute(jnp.bfloat16)
    together = hf_fixture.padded_together(batches)
    ours = np.asarray(
        hf_fixture.run(
            lambda p, b: network.apply(p, b, found.model, compute), found.params, together
        )
    )
    error, row = 0.0, 0
    for case in cases:
        theirs = io[f"{case}.logits"]
        error = max(error, np.abs(ours[row : row + len(theirs), : theirs.shape[1]] - theirs).max())
        row += len(theirs)
    print(f"bfloat16 logits {error:.3f} of {np.abs(io['utf8.logits']).max():.1f}")
    assert 0 < error < BFLOAT16
