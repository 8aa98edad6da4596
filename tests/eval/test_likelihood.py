"""Likelihoods, batched: against one full forward pass each, for models of patches, tokens and
bytes.
"""

import numpy as np
import pytest

from blt_jax.eval import likelihood
from tests.interop.test_facade import nats

TEXTS = [
    b"it is",
    b" what it is, and that is that. it",
    b"\xff\x00 is",
    " eë中".encode(),
    b"it is what it is, " * 9,
]


@pytest.mark.parametrize("name", ["patches", "tokens", "bytes"])
def test_continuations_equal_a_forward_pass_by_hand(models, name):
    model = models[name]
    before = [b"", b"that", b"is", b"and"]
    told = []
    scored = model.score(TEXTS[:4], before, greedy=True, tell=lambda *done: told.append(done))
    for text, start, one in zip(TEXTS[:4], before, scored, strict=True):
        ids = model.encode(start + text)[:-1]
        first = len(start) if name != "tokens" else len(model.encode(start)) - 2
        if name == "tokens":  # none of these starts ends inside a token
            assert model.decode(ids[: first + 1]) == start
        logits = model.logits(ids[None, :-1])[0]
        np.testing.assert_allclose(one.nats_N, nats(logits, ids[1:])[first:], atol=1e-4)
        np.testing.assert_array_equal(one.greedy_N, logits[first:].argmax(-1) == ids[first + 1 :])
    assert told[-1] == (sum(len(one.nats_N) for one in scored),) * 2


def test_what_the_model_would_say_is_greedy(models):
    model = models["bytes"]
    (said,) = model.generate([b"and"], 3)
    assert len(said) == 3
    other = bytes([said[0], said[1] ^ 1, said[2]])
    likeliest, less = model.score([said, other], [b"and"] * 2, greedy=True)
    assert likeliest.greedy_N.all() and less.greedy_N[0] and not less.greedy_N[1]


def test_a_token_across_the_boundary_belongs_to_the_text(models):
    model = models["tokens"]
    ids = model.encode(b"that is")
    widths = model._bpe.token_bytes[ids[1:-1]]
    assert widths.max() > 1
    across = int(np.argmax(widths > 1))
    inside = int(widths[:across].sum()) + 1  # a start that ends inside a token
    scored = model.score([b"that is"[inside:]], [b"that is"[:inside]])[0]
    assert len(scored.nats_N) == len(widths) - across


@pytest.mark.parametrize("name", ["patches", "tokens", "bytes"])
def test_documents_in_one_call_equal_bits_of_each(models, name):
    model = models[name]
    scored = model.score(TEXTS)
    for i in (1, 4):  # within the context, and beyond it
        assert scored[i].bits == pytest.approx(model.bits(TEXTS[i]), rel=1e-5)
    texts = [len(text) for text in TEXTS]
    if name == "bytes":
        assert [one.units for one in scored] == texts
    if name == "tokens":
        assert [one.units for one in scored] == [len(model.encode(text)) - 2 for text in TEXTS]
    if name == "patches":  # of a text within the context: those of the whole, less BOS's own
        lengths = model.patch_lengths(model.encode(TEXTS[1])[None, :-1])[0]
        begins = np.cumsum(lengths) - lengths
        assert scored[1].units == (begins[lengths > 0] < len(TEXTS[1]) + 1).sum() - 1


@pytest.mark.parametrize(
    "count, first", [(5, 0), (64, 0), (65, 0), (200, 0), (200, 190), (200, 100), (70, 69), (9, 9)]
)
def test_windows_score_every_target_once(count, first):
    found = likelihood.windows(count, 64, first)
    scored = [target for _, scored, end in found for target in range(scored, end)]
    assert scored == list(range(first, count))
    assert all(end - begin <= 64 and begin <= scored for begin, scored, end in found)
    assert all(
        begin == 0 or scored - begin >= 32 for begin, scored, _ in found
    )  # never less than half a context
    if first >= count - 32 and found:
        assert found == [(max(0, count - 64), first, count)]


def test_batches_take_every_window_and_few_shapes():
    lengths = [3, 500, 64, 70, 512, 20, 130, *([512] * 70)]
    found = likelihood._batches(lengths, 1 << 14)
    assert sorted({n for _, some in found for n in some}) == list(range(len(lengths)))
    assert all(lengths[n] <= length for length, some in found for n in some)
    assert {(length, len(some)) for length, some in found} == {(512, 32)}
    assert likelihood._batches([5], 1 << 14) == [(64, [0])] and likelihood._batches([], 64) == []
