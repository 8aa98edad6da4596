"""Decoding id by id against the forward pass over the whole row: the same patches, the same logits,
for every form.
"""

import dataclasses

import jax
import numpy as np
import pytest

from blt_jax.config import EOS, Stack
from blt_jax.eval.entropy_scoring import NEWLINE
from blt_jax.families import Plan, network, row_batch
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.infer import generation, prompts
from blt_jax.nn import incremental
from blt_jax.patching import Patching, row_layout, row_starts
from tests.interop.test_round_trip import random_params

TOLERANCE = 1e-4  # of a logit; measured: below 1e-5
LENGTH, FIRST = 60, (3, 17)  # ids of the rows, of which the prompts hold so many

LOCAL = Stack(1, 16, 2, ffn=24, window=7)
LATENT = Stack(1, 24, 2, ffn=40)
PATCHER = Lm(Stack(1, 16, 2, ffn=24, window=6, rope_theta=1e4))
BLT = Blt(LOCAL, LATENT, LOCAL, hash_sizes=(3, 5), hash_rows=50)
SPACEBYTE = dict(encoder_cross="none", decoder_cross="none", hash_sizes=())
PAPER = dict(
    cross_residual="single",
    pool_from="embeddings",
    hash_norm=True,
    hash_short="omit",
    hash_order="newest",
    hash_scope="document",
)
two, grouped = (
    dataclasses.replace(LOCAL, layers=2),
    dataclasses.replace(LATENT, layers=2, kv_heads=1),
)
CASES = {
    "entropy": (dataclasses.replace(BLT, decoder=two), Patching("entropy", threshold=5.325)),
    "relative, newline reset, patches read every encoder layer": (
        dataclasses.replace(
            BLT,
            encoder=two,
            encoder_cross="all",
            decoder_cross="first",
            tied=True,
            cross_kv_heads=1,
        ),
        Patching("relative", threshold=0.05, newline_reset=True),
    ),
    "combined, long patches, as the paper says": (
        dataclasses.replace(BLT, latent=grouped, slots=1, **PAPER),
        Patching("combined", threshold=5.2, threshold_add=0.09),
    ),
    "spacebyte": (dataclasses.replace(BLT, **SPACEBYTE), Patching("space")),
    "megabyte, windowed latent": (
        dataclasses.replace(BLT, slots=3, latent=dataclasses.replace(LATENT, window=4)),
        Patching("strided", stride=4),
    ),
    "max length": (
        dataclasses.replace(BLT, **SPACEBYTE),
        Patching("entropy", threshold=5.325, max_length=3),
    ),
}


def text(rows):
    """Random words with newlines and an EOS in the middle, int32 [rows, LENGTH]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4 + 97, 4 + 123, (rows, LENGTH))
    ids[rng.random(ids.shape) < 0.2] = 4 + 32
    ids[:, [11, 40]], ids[:, 0], ids[0, 25], ids[1, 9] = NEWLINE, 1, EOS, EOS
    return ids.astype(np.int32)


def decoded(plan, params, ids_BxL):
    """(logits [B, L, V], starts [B, L + 1] with the first of each row) from each prompt's last id
    on; NaN before.
    """
    rows = [row[:n] for row, n in zip(ids_BxL, FIRST, strict=True)]
    state = prompts.start(params, plan, rows, LENGTH)
    split = generation.Params(*map(incremental.by_layer, params))

    def one(state, ids_B):
        state, starts_B = generation.feed(split, plan, state, ids_B, np.zeros(len(rows), bool))
        return state, (state.logits_BxV, starts_B)

    longest = LENGTH - min(FIRST)
    rest = np.stack(
        [np.pad(row[n:], (0, longest - LENGTH + n)) for row, n in zip(ids_BxL, FIRST, strict=True)]
    )
    _, (logits, starts) = jax.jit(lambda state, ids: jax.lax.scan(one, state, ids))(state, rest.T)
    all_logits = np.full((*ids_BxL.shape, plan.model.vocab), np.nan, np.float32)
    all_starts = np.zeros((len(rows), LENGTH + 1), bool)
    for b, n in enumerate(FIRST):
        all_logits[b, n - 1] = state.logits_BxV[b]
        all_logits[b, n:] = logits[: LENGTH - n, b]
        all_starts[b, n + 1 :] = starts[: LENGTH - n, b]
    return all_logits, all_starts


def close(ours, theirs, what):
    seen = ~np.isnan(ours)
    assert seen[:, FIRST[-1] - 1 :].all()
    error = np.abs(ours - theirs)[seen].max()
    assert error < TOLERANCE, f"{what}: {error}"
    print(f"{what}: {error:.1e}")


@pytest.mark.parametrize("name", CASES)
def test_blt(name):
    config, patching = CASES[name]
    reads = patching.needs_entropies
    closes = (EOS, NEWLINE) if patching.newline_reset else (EOS,)
    patcher = generation.measuring(PATCHER, closes, network.PLAIN) if reads else None
    plan = Plan(config, (EOS,), network.PLAIN, patching, patcher, rounds=True)
    params = generation.Params(random_params(config), random_params(PATCHER, 1) if reads else None)
    ids, entropies = text(2), None
    if reads:
        batch = row_batch.segmented(list(ids), closes)
        apply = jax.jit(
            lambda params, batch: network.entropy(network.apply(params, batch, PATCHER))
        )
        entropies = np.asarray(apply(params.patcher, batch)).astype(np.float16)[:, :LENGTH]
    starts = row_starts.starts(ids, entropies, patching, include_next=True)
    lengths = [row_layout.starts_to_lengths(row) for row in starts]
    assert len({len(n) for n in lengths}) == 2 or patching.rule == "strided", (
        "rows close patches at different times"
    )
    if "long" in name:
        assert max(lengths[1]) > 32 > max(lengths[0])
    batch = row_batch.patched(list(ids), lengths)
    whole = np.asarray(
        jax.jit(lambda params, batch: network.apply(params, batch, config))(params.model, batch)
    )
    logits, found = decoded(plan, params, ids)
    for b, n in enumerate(FIRST):
        np.testing.assert_array_equal(found[b, n + 1 :], starts[b, n + 1 :])
    close(logits, whole[:, :LENGTH], name)


@pytest.mark.parametrize("name", ["tokens", "bytes"])
def test_lm(name):
    stack = dataclasses.replace(LATENT, kv_heads=1, layers=2, window=0 if name == "tokens" else 9)
    config = Lm(stack, vocab=300, unit="token", tied=True) if name == "tokens" else Lm(stack)
    closes, ids = () if name == "tokens" else (EOS,), text(2)
    params = random_params(config)
    batch = row_batch.segmented(list(ids), closes)
    whole = np.asarray(
        jax.jit(lambda params, batch: network.apply(params, batch, config))(params, batch)
    )
    logits, _ = decoded(Plan(config, closes, network.PLAIN), generation.Params(params, None), ids)
    close(logits, whole[:, :LENGTH], name)
