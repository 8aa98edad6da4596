"""Generation through `Model`: rows of a batch do not meet, seeds, stops, calls of any length."""

import jax
import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.data import vocab
from blt_jax.facade import Model
from blt_jax.families import network
from blt_jax.interop.huggingface import Pretrained
from blt_jax.patching import Patching
from tests.infer.test_equality import BLT, PATCHER
from tests.interop.test_round_trip import random_params

PROMPTS = [b"one two", b"", b"the third is the longest of them", b"4"]


@pytest.fixture(scope="module")
def model():
    params = random_params(BLT)
    params["decoder"]["head"]["kernel"] *= 3  # decided, not uniform
    found = Pretrained(
        BLT, params, PATCHER, random_params(PATCHER, 1), Patching("entropy", threshold=5.325), 64
    )
    return Model("there", found, None, np.float16, network.PLAIN)


@pytest.fixture(scope="module")
def greedy(model):
    return model.generate(PROMPTS, 40)


def test_rows_of_a_batch_do_not_meet(model, greedy):
    assert len(set(greedy)) == 4 and all(greedy)
    for prompt, text in zip(PROMPTS[1:3], greedy[1:3], strict=True):  # the shortest and the longest
        assert model.generate([prompt], 40) == [text]


def test_by_full_forward_passes(model, greedy):
    """The likeliest id of the whole row's logits, each time."""
    ids = vocab.encode(PROMPTS[2] + greedy[2], eos=False)
    first = len(PROMPTS[2])
    likeliest = model.logits(ids[None])[0].argmax(-1)
    np.testing.assert_array_equal(likeliest[first : len(ids) - 1], ids[first + 1 :])


def test_patches_told(model):
    ids = [vocab.encode(p, eos=False) for p in PROMPTS]
    parts = list(model.stream_ids(ids, 20, steps=7))
    assert [len(part[0][0]) for part in parts] == [7, 7, 6]
    for row, prompt in enumerate(ids):
        new, closed = (np.concatenate([part[row][i] for part in parts]) for i in range(2))
        lengths = model.patch_lengths(np.concatenate([prompt, new])[None].astype(np.int32))[0]
        starts = np.zeros(len(prompt) + len(new) + 1, bool)
        starts[np.cumsum(lengths) - lengths] = True
        np.testing.assert_array_equal(closed, starts[len(prompt) + 1 :])


def test_draws_and_stops(model):
    draw = lambda prompts, **how: model.generate(prompts, 40, temperature=1.0, top_p=0.9, **how)
    drawn = draw(PROMPTS, seed=3)
    assert drawn == draw(PROMPTS, seed=3) != draw(PROMPTS, seed=4)
    assert draw(PROMPTS[:1], seed=3) == drawn[:1]
    streamed = lambda **how: [
        b"".join(text for text, _ in parts)
        for parts in zip(
            *model.stream(PROMPTS, 40, temperature=1.0, top_p=0.9, seed=3, **how), strict=True
        )
    ]
    assert streamed(steps=7) == drawn, "not how many bytes a call makes"
    some = [bytes([drawn[0][9]]), drawn[2][17:19]]
    stopped = draw(PROMPTS, seed=3, stop=some)
    ends = [
        min([at for at in map(text.find, some) if at >= 0], default=len(text)) for text in drawn
    ]
    assert stopped == [text[:end] for text, end in zip(drawn, ends, strict=True)] != drawn
    assert streamed(steps=1, stop=some) == stopped, "what may begin a stop is held back"


def test_a_prompt_beyond_the_context_is_refused(model):
    with pytest.raises(ConfigError, match="prompt of 65 ids: there reads 64 at a time"):
        model.generate([b"a" * 64], 1)
    assert model.tail(b"b" + b"a" * 64) == b"a" * 63 and model.tail(b"ab") == b"ab"


def test_state_is_donated(model):
    """The caches are renewed in place: a second copy of them would be seen here."""
    from blt_jax.infer import generation, prompts

    state = prompts.start(
        generation.Params(model._on_device, model._patcher_on_device),
        model._plan,
        [np.array([1])],
        8,
    )
    kept = state.model.decoder.layers[0][0]
    for _ in generation.stream(model._by_layer, model._plan, state, 1, 8):
        pass
    assert kept.is_deleted() and not jax.tree.leaves(model._by_layer)[0].is_deleted()
