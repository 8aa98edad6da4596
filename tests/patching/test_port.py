"""The port of a rule: what a `Patching` answers by asking its rule, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.patching import RULES, Patching
from blt_jax.patching.row_layout import starts_to_lengths
from blt_jax.patching.row_starts import starts
from blt_jax.record import fingerprint
from tests.patching.every_rule import patchings


@pytest.mark.parametrize("name", patchings((0, 2)))
def test_bounds_hold(name):
    """No patch is longer than `longest_patch`, and none begin beyond `most_patches`."""
    patching, rng = patchings((0, 2))[name], np.random.default_rng(0)
    ids = rng.choice([2, 3, *range(100, 112)], 200)
    entropies = rng.exponential(1.0, ids.shape).astype(np.float32)
    flags = starts(ids, entropies, patching)
    if patching.longest_patch is not None:
        assert starts_to_lengths(flags).max() <= patching.longest_patch
    for first in (2, 3, 50):
        for room in (1, 2, 7, 100):
            assert flags[first : first + room].sum() <= patching.most_patches(room)


@pytest.mark.parametrize(
    "patching, size, longest, most",
    [
        (Patching(target=4.5), 4.5, None, 12),
        (Patching(), 6.0, None, 12),
        (Patching(target=4.5, max_length=4), 4, 4, 12),
        (Patching("space"), 6.0, None, 12),
        (Patching("strided", stride=5), 5.0, 5, 3),
        (Patching("strided", stride=5, max_length=2), 2, 2, 12),
        (Patching("strided", stride=5, max_length=9), 5.0, 9, 3),
        (Patching("byte"), 1.0, 1, 12),
    ],
)
def test_what_is_planned_with(patching, size, longest, most):
    assert patching.expected_size == size
    assert patching.longest_patch == longest
    assert patching.most_patches(12) == most


def test_what_rules_read():
    reads = {name: Patching(name, stride=3) for name in RULES}
    assert {n for n, p in reads.items() if p.needs_entropies} >= {"entropy", "relative", "combined"}
    assert {n for n, p in reads.items() if p.needs_ids} >= {"space", "bpe"}
    assert not any(reads[name].needs_ids for name in ("entropy", "strided", "byte"))
    assert {n for n, p in reads.items() if p.has_threshold} >= {"entropy", "relative", "combined"}
    assert not reads["space"].has_threshold


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(rule="spase"),
            r"patching.rule = 'spase': must be one of entropy, relative, .*'space'",
        ),
        (dict(rule="strided"), "patching.stride = 0: must be at least 1 byte"),
        (dict(target=0.5), "patching.target = 0.5: must be 0 or at least 1 byte"),
        (dict(max_length=-1), "patching.max_length = -1: must not be negative"),
    ],
)
def test_refusals(fields, message):
    with pytest.raises(ConfigError, match=message):
        Patching(**fields)


def test_fingerprints_stay():
    """Row indexes and calibrations of studies that were prepared before still count."""
    known = {
        "0c7a815c56535ec3": Patching(),
        "5ff788ab42f91707": Patching("strided", stride=4, max_length=3),
    }
    assert {fingerprint(patching): patching for patching in known.values()} == known


def test_settings_load_no_jax():
    check = (
        "import sys; from blt_jax.patching import RULES, Patching; "
        "[Patching(name, stride=2).longest_patch for name in RULES]; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
