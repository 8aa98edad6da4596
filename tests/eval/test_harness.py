"""The evaluation harness on models of ours, offline, on local files: its numbers against ours by
hand.
"""

import importlib.util

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.eval import tasks
from tests.eval.test_tasks import SHARED, write

if importlib.util.find_spec("lm_eval") is None:
    pytest.skip("needs pip install -e '.[eval]'", allow_module_level=True)


@pytest.fixture(scope="module")
def harness():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
            patch.setenv(name, "1")
        from blt_jax.eval import harness

        yield harness


class Request:
    def __init__(self, *args):
        self.args = args


QUESTIONS = [("that is", ["it", "what it is"]), ("and", ["that is that", "x"])]


@pytest.mark.parametrize("name", ["patches", "tokens"])
def test_choices_by_likelihood(harness, models, tmp_path, name):
    """The scores of the harness's run, from our own likelihoods."""
    model = models[name]
    rows = [
        {"question": q, "choices": choices, "label": i} for i, (q, choices) in enumerate(QUESTIONS)
    ]
    write(tmp_path, "arc_easy.jsonl", rows)
    found = harness.run(model, tasks.requested(["arc_easy"], tmp_path))["arc_easy"]["documents"]
    for i, (question, choices) in enumerate(QUESTIONS):
        start = f"Question: {question}\nAnswer:".encode()
        said = [f" {choice}".encode() for choice in choices]
        bits = [one.bits for one in model.score(said, [start] * len(said), greedy=True)]
        sizes = [len(choice) for choice in choices]
        assert found["acc"][i] == (np.argmin(bits) == i)
        assert found["acc_bytes"][i] == (np.argmin(np.array(bits) / sizes) == i)
        assert found["answer_bpb"][i] == pytest.approx(bits[i] / (1 + sizes[i]), rel=1e-4)


def test_the_three_requests(harness, models):
    model = models["bytes"]
    lm = harness.HarnessModel(model)
    assert lm.loglikelihood_rolling([Request("it is")])[0] == pytest.approx(
        -sum(model.score([b"it is"])[0].nats_N[:-1]), rel=1e-4
    )
    logits = model.logits(model.encode(b"it")[None, :-1])[0, -1]
    greedy = bytes([int(logits.argmax()) - 4])
    asked = (
        [Request("it", "q"), Request("it", greedy.decode("latin-1"))]
        if greedy < b"\x80"
        else [Request("it", "q")]
    )
    answers = lm.loglikelihood(asked)
    assert answers[0][1] == (greedy == b"q") and all(value < 0 for value, _ in answers)
    settings = {"until": ["\n"], "max_gen_bytes": 3, "do_sample": False}
    prompts = ["it", "what it is", "x"]
    made = lm.generate_until(
        [Request(p, settings if p != "x" else settings | {"max_gen_bytes": 2}) for p in prompts]
    )
    for prompt, text, most in zip(prompts, made, (3, 3, 2), strict=True):
        assert text == model.generate([prompt.encode()], most, stop=b"\n")[0].decode(
            "utf-8", "replace"
        )


def test_generated_answers_programs_and_translations(harness, models, tmp_path, monkeypatch):
    write(tmp_path, "g2p_phonologybench.jsonl", [{"grapheme": "w", "phonemes": "f f"}] * 7)
    write(
        tmp_path, "translation_ntrex.jsonl", [{"text": {"eng": "the same words", "deu": "d"}}] * 5
    )
    test = "def check(f):\n    assert f() == 1"
    write(tmp_path, "humaneval.jsonl", [{"prompt": "def f():", "entry_point": "f", "test": test}])
    asked = tasks.requested(
        ["g2p_phonologybench", "translation_ntrex_deu_eng", "humaneval"], tmp_path
    )
    with pytest.raises(ConfigError, match="humaneval: runs programs"):
        harness.run(models["bytes"], asked)
    said = {"Phonemes:": b" f f", "eng:": b" the same words", "def f():": b" return 1"}

    def generate(prompts, **_):
        return [
            next(text for end, text in said.items() if prompt.decode().endswith(end))
            for prompt in prompts
        ]

    monkeypatch.setattr(models["bytes"], "generate", generate)
    found = harness.run(models["bytes"], asked, execute=True)
    assert found["g2p_phonologybench"]["documents"]["exact_match"] == [1.0, 1.0]
    assert found["humaneval"]["documents"]["pass@1"] == [1.0]
    assert found["translation_ntrex_deu_eng"]["corpus"]["chrf"] == pytest.approx(100)
    said |= {"Phonemes:": b" f", "def f():": b" return 2"}
    found = harness.run(models["bytes"], asked, execute=True)
    assert found["g2p_phonologybench"]["documents"]["exact_match"] == [0.0, 0.0]
    assert found["humaneval"]["documents"]["pass@1"] == [0.0]


@pytest.mark.skipif(not SHARED.exists(), reason="the evaluation files are not here")
def test_real_questions(harness, models):
    asked = tasks.requested(["hellaswag", "mmlu"], SHARED, 2)
    found = harness.run(models["tokens"], asked)
    assert all(len(found[name]["documents"]["acc"]) == 2 for name in ("hellaswag", "mmlu"))
