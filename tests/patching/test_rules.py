"""Patch rules against worked examples, published facts and independent fixtures, exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import BOS, BYTE_OFFSET, EOS, ConfigError
from blt_jax.patching import Patching
from blt_jax.patching.row_layout import lengths_to_starts, starts_to_lengths
from blt_jax.patching.row_starts import starts
from tests.patching.every_rule import EVERY_RULE

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "patching"
needs_fixtures = pytest.mark.skipif(
    not FIXTURES.exists(), reason="shared/fixtures/patching is not beside the checkout"
)
THRESHOLD = Patching().threshold  # of the published models


def ids_of(text):
    return np.array([BOS, *(b + BYTE_OFFSET for b in text.encode()), EOS], np.int32)


def lengths(ids, entropies, include_next=False, **patching):
    return starts_to_lengths(starts(ids, entropies, Patching(**patching), include_next)).tolist()


# ---------------------------------------------------------------- worked examples (docs/blt.md, section
# 2.3)

ABCDEF = ids_of("abcdef")[:-1]
E7 = np.array([5.0, 0.2, 2.0, 0.1, 1.5, 1.4, 0.3], np.float32)


@pytest.mark.parametrize(
    "patching, closed, with_next",
    [
        (dict(rule="entropy"), [1, 2, 2, 1, 1], [1, 2, 2, 1, 2]),
        (dict(rule="combined", threshold=1.0, threshold_add=0.0), [1, 1, 3, 2], [1, 1, 3, 3]),
        (dict(rule="relative", threshold=0.5), [1, 1, 1, 2, 2], [1, 1, 1, 2, 3]),
    ],
)
def test_entropy_rules(patching, closed, with_next):
    assert lengths(ABCDEF, E7, **patching) == closed
    assert lengths(ABCDEF, E7, include_next=True, **patching) == with_next


def test_adjacency_guard_blocks_only_position_3():
    ramp = np.array([0, 0, 1, 2, 3, 4, 5, 6], np.float32)
    assert lengths(np.full(8, 70), ramp, rule="combined", threshold=0.5, threshold_add=0.5) == [
        1,
        1,
        2,
        1,
        1,
        1,
        1,
    ]


def test_max_length_cuts_last_and_from_the_left():
    low = np.zeros(8, np.float32)
    assert lengths(np.full(8, 70), low, include_next=True, rule="entropy") == [1, 8]
    assert lengths(np.full(8, 70), low, include_next=True, rule="entropy", max_length=3) == [
        1,
        3,
        3,
        2,
    ]


@pytest.mark.parametrize("rule", ["entropy", "relative", "combined", "space", "byte", "bpe"])
def test_shortest_documents(rule):
    one, two = ids_of("")[:1], ids_of("a")[:2]
    high = np.zeros(2, np.float32)
    assert lengths(one, high[:1], rule=rule) == [1]
    assert lengths(one, high[:1], rule=rule, include_next=True) == [1, 1]
    assert lengths(two, high, rule=rule) == [1, 1]
    always = [1, 1, 1] if rule in ("relative", "combined", "byte") else [1, 2]
    assert lengths(two, high, rule=rule, include_next=True) == always


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Hello, world! 42", [1, 6, 7, 4]),
        ("a  b", [1, 2, 3]),
        ("né x", [1, 2, 2, 2]),
        ("日本 語", [1, 4, 3, 4]),
    ],
)
def test_space(text, expected):
    assert lengths(ids_of(text), None, rule="space") == expected


def test_bpe_starts_after_each_delimiter():
    ids = np.array([1, 3, 80, 105, 120, 3, 43, 3, 119, 2], np.int32)
    assert lengths(ids, None, rule="bpe") == [1, 1, 4, 2, 2]


def test_golden_sentence():
    """The paper's figure 4: the starts, the lengths and the segmentation say the same, and the rule
    gives them.
    """
    words = "<|D|a|e|n|erys_Targaryen_|is_|in_|G|a|me_|of_Thrones,_|a|_|f|a|n|tasy_|epic_|b|y_|G|eorge_R.R._Martin.>"
    golden_starts = [
        0,
        1,
        2,
        3,
        4,
        5,
        20,
        23,
        26,
        27,
        28,
        31,
        43,
        44,
        45,
        46,
        47,
        48,
        53,
        58,
        59,
        61,
        62,
    ]
    golden_lengths = [1, 1, 1, 1, 1, 15, 3, 3, 1, 1, 3, 12, 1, 1, 1, 1, 1, 5, 5, 1, 2, 1, 19]
    assert [len(w) for w in words.split("|")] == golden_lengths
    ids = ids_of(words.replace("|", "").replace("_", " ")[1:-1])
    assert ids.size == 81 == sum(golden_lengths)
    # Of the published entropies only the first six are known; the others are put on the side the
    # starts show.
    entropies = np.where(np.isin(np.arange(1, 82), golden_starts), 2.0, 0.5)
    entropies[:6] = 3.395, 2.166, 2.322, 2.821, 1.525, 0.040
    for dtype in (np.float32, np.float16):
        assert (
            np.flatnonzero(starts(ids, entropies.astype(dtype), Patching())).tolist()
            == golden_starts
        )
    assert np.array_equal(np.flatnonzero(lengths_to_starts(golden_lengths)), golden_starts)


# ---------------------------------------------------------------- fixtures


@needs_fixtures
def test_fixture_entropy_cases():
    from safetensors.numpy import load_file

    arrays = load_file(FIXTURES / "entropies.safetensors")
    cases = json.loads((FIXTURES / "cases.json").read_text())["entropy"]
    rules = {"global": "entropy", "monotonic": "relative", "global_and_monotonic": "combined"}
    assert len(cases) == 200
    for number, case in enumerate(cases):
        entropies = arrays["entropies"][arrays["offsets"][number] : arrays["offsets"][number + 1]]
        patching = dict(
            rule=rules[case["mode"]],
            threshold=case["threshold"],
            threshold_add=case["threshold_add"] or 0.0,
            max_length=case["max_patch_length"] or 0,
        )
        got = lengths(np.full(entropies.size, 70), entropies, include_next=True, **patching)
        assert got == case["patch_lengths"], (number, case)


@needs_fixtures
def test_fixture_space_and_static_cases():
    cases = json.loads((FIXTURES / "cases.json").read_text())
    for number, case in enumerate(cases["space"]):
        got = lengths(
            case["ids"],
            None,
            include_next=True,
            rule="space",
            max_length=case["max_patch_length"] or 0,
        )
        assert got == case["patch_lengths"], number
    for number, case in enumerate(cases["static"]):
        ids = np.full(case["length"], 70)
        got = lengths(ids, None, include_next=True, rule="strided", stride=case["stride"])
        assert got == case["patch_lengths"], number


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("max_length", [0, 1, 3])
@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda r: r["rule"])
def test_starts_of_a_prefix_are_a_prefix_of_the_starts(rule, max_length):
    rng = np.random.default_rng(0)
    patching = Patching(max_length=max_length, **rule)
    for _ in range(5):
        n = int(rng.integers(1, 40))
        ids = rng.integers(0, 260, n)
        entropies = (rng.random(n) * 2).astype(np.float16)
        whole = starts(ids, entropies, patching, include_next=True)
        assert np.array_equal(starts(ids, entropies, patching), whole[:-1])
        for m in range(1, n + 1):
            assert np.array_equal(
                starts(ids[:m], entropies[:m], patching, include_next=True), whole[: m + 1]
            )
        if max_length:
            assert starts_to_lengths(whole).max() <= max_length


def test_float16_is_compared_in_float32():
    """1.3359375 is the float16 above the threshold; in float16 or bfloat16 the threshold itself
    would round to it.
    """
    entropies = np.array([0, 1.3359375, 1.3349609375], np.float16)
    assert starts(np.full(3, 70), entropies, Patching(), include_next=True).tolist() == [
        True,
        True,
        True,
        False,
    ]
    # 4 - 0.00097656 is 3.99902344 in float32, but 4 in float16.
    rise = np.array([0, 0.00097656, 4], np.float16)
    assert not starts(
        np.full(3, 70), rise, Patching(rule="relative", threshold=3.9995), include_next=True
    )[-1]


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda r: r["rule"])
def test_rows_of_a_batch_do_not_touch(rule):
    rng = np.random.default_rng(1)
    ids_BxL, entropies_BxL = rng.integers(0, 260, (3, 20)), rng.random((3, 20), np.float32) * 2
    patching = Patching(max_length=5, **rule)
    flags = starts(ids_BxL, entropies_BxL, patching)
    for b in range(3):
        assert np.array_equal(flags[b], starts(ids_BxL[b], entropies_BxL[b], patching))


def test_missing_entropies_are_named():
    with pytest.raises(ConfigError, match="'entropy' needs one entropy per id .* got none"):
        starts(ABCDEF, None, Patching())
    with pytest.raises(ConfigError, match=r"got shape \(6,\)"):
        starts(ABCDEF, E7[:-1], Patching())
