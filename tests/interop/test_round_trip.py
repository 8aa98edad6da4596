"""Random models of ours, saved and run by transformers, and back: the same logits, the same
weights.
"""

import dataclasses

import jax
import numpy as np
import pytest

import blt_jax
from blt_jax.config import Stack
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import huggingface
from blt_jax.patching import Patching
from tests.reference import dense_blt, hf_fixture

TOLERANCE = 2e-5
LLAMA3 = (8.0, 1.0, 4.0, 16.0)


def local(**more):
    return Stack(**dict(layers=1, width=16, heads=2, ffn=24, window=8) | more)


def latent(**more):
    return Stack(**dict(layers=1, width=24, heads=2, ffn=40) | more)


# Each covers several flags; together every flag that transformers knows takes two values.
BLTS = {
    "multi-query": Blt(
        local(window=5, kv_heads=1, layers=2),
        latent(kv_heads=1, layers=2),
        local(window=5, kv_heads=1, layers=2),
        slots=1,
        cross_kv_heads=1,
        hash_sizes=(2, 5),
        hash_functions=2,
        hash_rows=61,
        decoder_cross="all",
    ),
    "encoder-all-tied": Blt(
        local(window=64, norm_eps=1e-3),
        latent(rope_theta=700.0),
        local(window=64, layers=2, ffn=32),
        slots=3,
        encoder_cross="all",
        decoder_cross="first",
        hash_sizes=(3,),
        hash_functions=3,
        hash_rows=50,
        tied=True,
    ),
    "llama3-scaling": Blt(
        local(rope_scaling=LLAMA3, heads=1),
        latent(width=64, heads=4, kv_heads=2, rope_scaling=LLAMA3, rope_theta=900.0),
        local(rope_scaling=LLAMA3, heads=1, rope_theta=300.0),
        slots=4,
        hash_sizes=(4,),
        hash_rows=40,
    ),
}
LENGTHS = np.array([[1, 3, 1, 9, 2, 5, 4, 0], [1, 1, 2, 2, 6, 3, 7, 3]])


def random_params(config, seed=0):
    """Weights of the usual size, with norms that are not ones, so that a forgotten one shows."""
    rng = np.random.default_rng(seed)

    def one(path, shape):
        if path[-1].key == "scale":
            return rng.uniform(0.7, 1.3, shape.shape).astype(np.float32)
        return (rng.standard_normal(shape.shape) * 0.2).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, network.shapes(config))


def random_ids(shape, vocab, seed=1):
    return np.random.default_rng(seed).integers(4, vocab, shape).astype(np.int32)


def transformers_model(kind, folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    made = getattr(transformers, kind).from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    model, told = made
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not told[what], f"{what}: {told[what]}"
    return model.eval(), torch


def their_logits(model, torch, ids, **more):
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.long), use_cache=False, **more).logits.numpy()


def our_logits(params, config, ids, lengths):
    batch = (
        {"ids_BxL": ids, "segment_BxL": np.ones_like(ids)}
        if lengths is None
        else hf_fixture.batch(ids, lengths)
    )
    return np.asarray(hf_fixture.run(lambda p, b: network.apply(p, b, config), params, batch))


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("name", BLTS)
def test_blt(name, tmp_path):
    config = BLTS[name]
    params, ids = random_params(config), random_ids((2, 24), 260)
    huggingface.save(tmp_path / "ours", config, params, context=512, max_shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 1
    model, torch = transformers_model("BltForCausalLM", tmp_path / "ours")
    theirs = their_logits(model, torch, ids, patch_lengths=torch.tensor(LENGTHS))
    assert np.abs(our_logits(params, config, ids, LENGTHS) - theirs).max() < TOLERANCE
    model.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    back = huggingface.load(tmp_path / "theirs")
    assert (back.model, back.patching.rule, back.patcher, back.context) == (
        config,
        "byte",
        None,
        512,
    )
    assert same(back.params, params)


@pytest.mark.parametrize("tied", [False, True])
def test_llama(tied, tmp_path):
    stack = latent(
        heads=6 if tied else 3,
        kv_heads=2 if tied else 1,
        layers=2,
        rope_scaling=LLAMA3 if tied else (),
    )
    config = Lm(stack, vocab=70, unit="token", tied=tied)
    params, ids = random_params(config), random_ids((2, 24), 70)
    huggingface.save(tmp_path / "ours", config, params, context=64)
    model, torch = transformers_model("LlamaForCausalLM", tmp_path / "ours")
    theirs = their_logits(model, torch, ids)
    assert np.abs(our_logits(params, config, ids, None) - theirs).max() < TOLERANCE
    model.to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    back = huggingface.load(tmp_path / "theirs")
    assert (back.model, back.context) == (config, 64)
    rounded = jax.tree.map(lambda w: w.astype(jax.numpy.bfloat16).astype(np.float32), params)
    assert same(back.params, rounded)


def test_patcher_and_its_cuts(tmp_path):
    """Entropy patching inside transformers gives our patches (its lengths leave the next byte
    out).
    """
    config, patcher = (
        BLTS["multi-query"],
        Lm(local(kv_heads=1, layers=2, window=6, rope_theta=10_000.0)),
    )
    params, patcher_params, ids = (
        random_params(config),
        random_params(patcher, 1),
        random_ids((1, 30), 260),
    )
    huggingface.save(
        tmp_path, config, params, patcher, patcher_params, Patching("entropy", max_length=0)
    )
    model, torch = transformers_model("BltForCausalLM", tmp_path)
    ours = blt_jax.load(tmp_path)
    assert (ours.patcher, ours.patching) == (patcher, Patching("entropy"))
    measured = np.sort(ours.entropies(ids)[0])
    threshold = float(measured[14:16].mean())
    ours.patching = Patching("entropy", threshold=threshold)
    with torch.no_grad():
        entropies, lengths, _ = model.model.patcher(
            torch.tensor(ids).long(), patch_size=4, threshold=threshold
        )
    assert np.abs(ours.entropies(ids) - entropies.numpy()).max() < TOLERANCE
    made = ours.patch_lengths(ids)
    assert 10 < made.shape[1] < 20 and made.sum() == 31
    starts = lambda lengths: [at for at in np.cumsum(lengths) if at < 30]
    assert starts(made[0]) == starts(lengths.numpy()[0])


def test_two_encoder_layers_that_both_cross(tmp_path):
    """transformers pools again after each layer; so here the dense reference is the judge,
    documents included.
    """
    config = dataclasses.replace(BLTS["multi-query"], encoder_cross="all", slots=2)
    params, ids = random_params(config), random_ids((2, 24), 260)
    ids[0, 9] = ids[1, 15] = 2
    ours = our_logits(params, config, ids, LENGTHS)
    for row in range(2):
        dense = dense_blt.logits(params, config, ids[row], LENGTHS[row][LENGTHS[row] > 0])
        assert np.abs(ours[row] - dense).max() < TOLERANCE
    huggingface.save(tmp_path, config, params)  # transformers has the weights' names and shapes
    assert same(huggingface.load(tmp_path).params, params)
