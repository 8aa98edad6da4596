"""Entropies in pieces equal those of the whole document; documents do not see each other."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from blt_jax.config import ConfigError, Stack
from blt_jax.eval import entropy_scoring
from blt_jax.families import network, preset
from blt_jax.families.lm.config import Lm
from tests import QUICK

ROOT = Path(__file__).resolve().parents[2]

CONFIG = Lm(Stack(2, 16, 2, window=6, ffn_multiple=8))
TOLERANCE = 2e-3  # float16 steps below 8 nats are 0.004 apart: equal up to one rounding


@pytest.fixture(scope="module")
def params():
    return network.init(jax.random.key(0), CONFIG)


def whole(params, ids, segment=None):
    """Float32 entropies of a document in one pass, padded to one shape."""
    batch = {"ids_BxL": np.zeros((1, 1024), np.int32), "segment_BxL": np.zeros((1, 1024), np.int32)}
    batch["ids_BxL"][0, : len(ids)] = ids
    batch["segment_BxL"][0, : len(ids)] = 1 if segment is None else segment + 1
    logp = np.asarray(jax.nn.log_softmax(logits(params, batch)))[0, : len(ids)]
    return -(np.exp(logp) * logp).sum(-1)


@jax.jit
def logits(params, batch):
    return network.apply(params, batch, CONFIG)


def score(params, documents, config=CONFIG, **how):
    ids = lambda i, begin, end: documents[i][begin:end]
    return list(entropy_scoring.score(params, config, [len(d) for d in documents], ids, **how))


def documents(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 260, size).astype(np.int32) for size in sizes]


def test_pieces_equal_the_whole_document(params):
    """Among them one of many rows: each is read with the 10 ids before it that the 2 layers of
    window 6 see back.
    """
    some = documents(3, 900, 1, 64, 257, 5)
    found = score(params, some, rows=2, length=128)
    assert [len(f) for f in found] == [len(d) for d in some]
    for ids, ours in zip(some, found, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours.astype(np.float32), whole(params, ids), atol=TOLERANCE)


def test_the_context_of_a_piece_is_as_long_as_it_must_be_and_no_longer(params, monkeypatch):
    (ids,) = documents(300)
    want = whole(params, ids)
    errors = {}
    for reach in (9, 10):
        monkeypatch.setattr(Lm, "context_reach", property(lambda _, reach=reach: reach))
        (found,) = score(params, [ids], length=32)
        errors[reach] = np.abs(found.astype(np.float32) - want).max()
    assert errors[10] < TOLERANCE < errors[9]


def test_what_shares_a_row_does_not_matter(params):
    """Whatever the neighbours are, and wherever in a row it lies, a document gets the same
    entropies.
    """
    some = documents(50, 20, 30, 11)
    alone = [score(params, [ids], length=128)[0] for ids in some]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        together = score(params, [some[i] for i in order], rows=1, length=128)
        for i, found in zip(order, together, strict=True):
            np.testing.assert_allclose(
                found.astype(np.float32), alone[i].astype(np.float32), atol=TOLERANCE
            )


def test_ranges_are_scored_by_themselves(params):
    """In the same batches, and so to the bit, whether other ranges are scored before or not at
    all.
    """
    some, ranges = documents(40, 300, 7, 128, 60, 5), [(0, 2), (2, 3), (3, 6)]
    meter, alone = entropy_scoring.Meter(), entropy_scoring.Meter()
    every = score(params, some, rows=2, length=64, ranges=ranges, meter=meter)
    assert len(every) == 6
    for first, end in ranges:
        one = score(params, some, rows=2, length=64, ranges=[(first, end)], meter=alone)
        assert all(np.array_equal(found, every[i]) for i, found in enumerate(one, start=first))
    assert meter.ids == alone.ids


def test_rows_are_filled_well(params):
    sizes = np.random.default_rng(1).lognormal(4, 1, 2000).astype(int) + 2
    meter = entropy_scoring.Meter()
    ids = lambda i, begin, end: np.full(end - begin, 50, np.int32)
    reached = []
    for _ in entropy_scoring.score(
        params,
        CONFIG,
        sizes,
        ids,
        rows=4,
        length=1024,
        meter=meter,
        progress=lambda *told: reached.append(told),
    ):
        pass
    assert reached[-1] == (sizes.sum(), sizes.sum()) and reached == sorted(reached)
    assert meter.ids / sizes.sum() < 1.02


def test_one_document_is_not_read_whole_for_each_of_its_pieces(params):
    read = []
    ids = lambda i, begin, end: read.append(end - begin) or np.full(end - begin, 50, np.int32)
    list(entropy_scoring.score(params, CONFIG, [5000], ids, length=128))
    assert max(read) <= 128 and sum(read) < 5000 * 128 / (128 - 10) + 128


def test_newline_reset_restarts_the_context(params):
    ids = np.array([1, 50, 60, 14, 70, 80, 90, 14, 50], np.int32)  # 14 is a newline
    ours, after = score(params, [ids, ids[4:]], length=64, newline_reset=True)
    lines = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    np.testing.assert_allclose(ours.astype(np.float32), whole(params, ids, lines), atol=TOLERANCE)
    np.testing.assert_allclose(
        after.astype(np.float32), whole(params, ids[4:], lines[4:]), atol=TOLERANCE
    )
    assert np.abs(ours.astype(np.float32) - whole(params, ids))[4:].max() > 10 * TOLERANCE


def test_a_failure_of_the_thread_that_makes_rows_is_told(params):
    def broken(i, begin, end):
        raise ConfigError("damaged")

    with pytest.raises(ConfigError, match="damaged"):
        list(entropy_scoring.score(params, CONFIG, [5], broken))


@pytest.mark.parametrize(
    "config, why",
    [
        (Lm(Stack(1, 16, 2)), "no window"),
        (Lm(Stack(1, 16, 2, window=4), 300, "token"), "this is a token LM of 300 entries"),
        (preset("blt-400m"), "this is a BLT"),
    ],
)
def test_models_that_cannot_measure_entropies_are_refused(config, why):
    with pytest.raises(ConfigError, match=why):
        score({}, documents(3), config)


EIGHT = """
import jax, numpy as np
from tests.eval.test_entropy import CONFIG, documents, entropy_scoring, network, score
real, shards, programs = entropy_scoring.entropies, set(), set()
def watched(params, batch, *how):
    shards.add(batch["ids_BxL"].sharding.shard_shape(batch["ids_BxL"].shape))
    if not programs:
        programs.add(real.lower(params, batch, *how).compile().as_text())
    return real(params, batch, *how)
params = network.init(jax.random.key(0), CONFIG)
some = documents(*range(2, 90), 900)
alone = score(params, some, rows=8, length=128, devices=jax.devices()[:1])
entropy_scoring.entropies = watched
found = score(params, some, rows=1, length=128)
print(len(jax.devices()), shards)
print([w for w in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if w in "".join(programs)])
print(max(np.abs(a.astype(np.float32) - b.astype(np.float32)).max() for a, b in zip(found, alone)))
"""


def test_eight_devices_equal_one():
    """Rows over 8 forced host devices: one row on each, nothing said between them, equal up to a
    rounding.
    """
    more = {"XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {QUICK}"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT],
        capture_output=True,
        text=True,
        env=os.environ | more,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    shards, collectives, difference = done.stdout.strip().splitlines()
    assert shards == "8 {(1, 128)}" and collectives == "[]" and float(difference) < 2 * TOLERANCE
