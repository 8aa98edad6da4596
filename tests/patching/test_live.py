"""Rules that decide id by id against the same rules over whole rows, exactly."""

import jax
import numpy as np
import pytest

from blt_jax.config import DELIMITER
from blt_jax.patching import Patching, live, row_starts
from tests.patching.every_rule import patchings

ROWS = 3
PATCHINGS = patchings() | {  # every registered rule, and settings of their own
    "entropy": Patching("entropy", threshold=1.0),
    "relative": Patching("relative", threshold=0.2),
    "combined": Patching("combined", threshold=0.8, threshold_add=0.1),
    "combined, cut": Patching("combined", threshold=1.2, threshold_add=0.4, max_length=4),
    "space, cut": Patching("space", max_length=3),
    "strided": Patching("strided", stride=6),
    "strided, cut": Patching("strided", stride=5, max_length=2),
}


@pytest.mark.parametrize("name", PATCHINGS)
def test_equals_the_rule_over_the_row(name):
    patching, rng = PATCHINGS[name], np.random.default_rng(0)
    ids = rng.choice([2, DELIMITER, *b" \nab0\xc3\xa9"], (ROWS, 80)).astype(np.int32)
    ids[ids > DELIMITER] += 4
    entropies = rng.exponential(1.0, ids.shape).astype(np.float16).astype(np.float32)
    expected = row_starts.starts(ids, entropies, patching, include_next=True)
    assert 5 < expected[:, 2:].sum() or patching.rule == "combined"

    def one(state, at):
        return live.step(state, *at, patching)

    for first in (1, 2, 3, 50):
        known = [list(x[:, :first]) for x in (ids, entropies)]
        state = live.after(*known, patching)
        _, starts = jax.lax.scan(one, state, (ids[:, first:].T, entropies[:, first:].T))
        np.testing.assert_array_equal(
            np.asarray(starts).T, expected[:, first + 1 :], f"after {first} ids"
        )


def test_rounding_is_float16s():
    powers = np.float32(2.0) ** np.arange(-26, 6)
    x = np.random.default_rng(0).exponential(1.0, 4096).astype(np.float32) * powers[:, None]
    x = np.concatenate([x.ravel(), powers, [0.0]]).astype(np.float32)
    np.testing.assert_array_equal(
        jax.jit(live.as_float16)(x), x.astype(np.float16).astype(np.float32)
    )
