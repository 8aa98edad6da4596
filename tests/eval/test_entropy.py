"""Entropies in pieces equal those of the whole document; documents do not see each other."""

import jax
import numpy as np
import pytest

from blt_jax import models
from blt_jax.config import ConfigError, Lm, Stack
from blt_jax.eval import entropy

CONFIG = Lm(Stack(2, 16, 2, window=6, ffn_multiple=8))
TOLERANCE = 2e-3  # float16 steps below 8 nats are 0.004 apart: equal up to one rounding


@pytest.fixture(scope="module")
def params():
    return models.init(jax.random.key(0), CONFIG)


def whole(params, ids, segment=None):
    segment = np.ones_like(ids) if segment is None else segment
    batch = {"ids_BxL": ids[None], "segment_BxL": segment[None]}
    logp = jax.nn.log_softmax(models.apply(params, batch, CONFIG)[0], axis=-1)
    return np.asarray(-(np.exp(logp) * logp).sum(-1))


def test_pieces_equal_the_whole_document(params):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 260, size).astype(np.int32) for size in (3, 900, 1, 64, 257, 5)]
    found = list(entropy.score(params, CONFIG, documents, rows=2, length=128))
    assert [len(f) for f in found] == [len(d) for d in documents]
    for ids, ours in zip(documents, found, strict=True):
        assert ours.dtype == np.float16
        np.testing.assert_allclose(ours.astype(np.float32), whole(params, ids), atol=TOLERANCE)


def test_newline_reset_restarts_the_context(params):
    ids = np.array([1, 50, 60, 14, 70, 80, 90, 14, 50], np.int32)  # 14 is a newline
    (ours,) = entropy.score(params, CONFIG, [ids], length=64, newline_reset=True)
    lines = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    np.testing.assert_allclose(ours.astype(np.float32), whole(params, ids, lines), atol=TOLERANCE)
    assert np.abs(ours.astype(np.float32) - whole(params, ids))[4:].max() > 10 * TOLERANCE


def test_a_model_without_window_is_refused():
    config = Lm(Stack(1, 16, 2))
    with pytest.raises(ConfigError, match="no window"):
        next(entropy.score({}, config, [np.ones(3, np.int32)]))
