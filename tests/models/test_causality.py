"""The loss at a byte has exactly zero gradient from later bytes and from other documents of its
row.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from blt_jax.config import Stack
from blt_jax.data.vocab import encode
from blt_jax.families import network
from blt_jax.families.blt import model as blt
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm import model as lm
from blt_jax.families.lm.config import Lm
from blt_jax.nn.embedding import read
from blt_jax.patching import Patching, row_starts
from blt_jax.patching.row_layout import row_layout
from tests.interop.test_round_trip import random_params

TEXTS = [b"def main():\n    return 42", "né 日本 語, so".encode(), b"x" * 20]
LOCAL = Stack(1, 16, 2, window=12, ffn_multiple=8)
PATCHINGS = {
    "entropy": Patching(rule="entropy", threshold=1.0),
    "relative": Patching(rule="relative", threshold=0.3),
    "combined": Patching(rule="combined", threshold=0.8, threshold_add=0.1),
    "space": Patching(rule="space"),
    "strided": Patching(rule="strided", stride=4),
    "byte": Patching(rule="byte"),
    "bpe": Patching(rule="bpe"),
    "max_length": Patching(rule="entropy", threshold=1.9, max_length=5),
}
FORMS = {
    "blt": dict(hash_sizes=(3, 4), hash_rows=64, hash_scope="document"),
    "paper": dict(hash_sizes=(3,), hash_rows=64, hash_scope="document", pool_from="embeddings", cross_residual="single",
                  hash_norm=True, hash_short="omit", hash_order="newest", encoder_cross="all"),
    "spacebyte": dict(hash_sizes=(), encoder_cross="none", decoder_cross="none"),
}  # fmt: skip


def row(patching):
    """One row with every document of TEXTS, cut by the rule from random entropies."""
    rng = np.random.default_rng(0)
    ids, starts = [], []
    for text in TEXTS:
        one = encode(text)
        ids.append(one)
        starts.append(
            row_starts.starts(one, rng.uniform(0, 2, len(one)).astype(np.float16), patching)
        )
    segment = np.repeat(np.arange(1, len(ids) + 1), [len(i) for i in ids])
    length = len(segment) + 4  # padding
    pad = lambda x: np.pad(x, (0, length - len(x)))[None].astype(np.int32)
    patch, read, patch_segment = row_layout(
        pad(np.concatenate(starts))[0] > 0, pad(segment)[0], length
    )
    return {
        "ids_BxL": pad(np.concatenate(ids)),
        "segment_BxL": pad(segment),
        "patch_BxL": patch[None],
        "read_BxL": read[None],
        "patch_segment_BxP": patch_segment[None],
    }


@functools.cache
def compiled(config):
    """Jitted batch -> [L, L, E], how logits at i change with the embedding at j; one program for
    all rules.
    """
    params = random_params(config)
    width = (config.encoder if isinstance(config, Blt) else config.stack).width

    def logits(nudge_LxE, batch):
        def nudged(*how):
            return read(*how) + nudge_LxE

        with (
            mock.patch.object(blt, "read", nudged),
            mock.patch.object(lm, "read", nudged),
        ):  # of hashes: their own
            return network.apply(params, batch, config).sum(-1)[0]

    return jax.jit(
        lambda batch: jax.jacrev(logits)(jnp.zeros((batch["ids_BxL"].shape[1], width)), batch)
    )


def influence(config, batch):
    """[L, L] booleans: does the embedding of the id at position j reach the logits at position
    i?
    """
    return np.abs(np.asarray(compiled(config)(batch))).max(-1) > 0


def assert_causal(config, batch):
    depends = influence(config, batch)
    segment = batch["segment_BxL"][0]
    i, j = np.nonzero(depends)
    assert (j <= i).all(), "a later byte reaches back"
    real = segment[i] > 0
    assert (segment[i][real] == segment[j][real]).all(), "another document of the row is seen"
    assert depends.diagonal()[segment > 0].all(), "each byte must reach its own logits"


@pytest.mark.parametrize("rule", PATCHINGS)
def test_blt_with_each_rule(rule):
    batch = row(PATCHINGS[rule])
    assert_causal(Blt(LOCAL, Stack(2, 32, 2, ffn_multiple=8), LOCAL, **FORMS["blt"]), batch)


@pytest.mark.parametrize("form", FORMS)
def test_each_form(form):
    batch = row(PATCHINGS["space"])
    assert_causal(Blt(LOCAL, Stack(2, 32, 2, ffn_multiple=8), LOCAL, **FORMS[form]), batch)


def test_lm():
    assert_causal(Lm(Stack(2, 16, 2, window=5, ffn_multiple=8)), row(PATCHINGS["space"]))


def test_changing_a_document_leaves_the_others_alone():
    """Hashes are functions of ids, which a gradient does not show: change the ids themselves."""
    config = Blt(LOCAL, Stack(2, 32, 2, ffn_multiple=8), LOCAL, **FORMS["blt"])
    params = random_params(config)
    batch = row(PATCHINGS["space"])
    first = batch["segment_BxL"][0] == 1
    changed = {
        **batch,
        "ids_BxL": np.where(first & (batch["ids_BxL"] > 3), 99, batch["ids_BxL"]).astype(np.int32),
    }
    apply = jax.jit(network.apply, static_argnums=2)
    a, b = apply(params, batch, config)[0], apply(params, changed, config)[0]
    other = batch["segment_BxL"][0] > 1
    assert np.array_equal(a[other], b[other]) and not np.array_equal(a[first], b[first])
