"""lm-evaluation-harness (`pip install -e '.[eval]'`): a model of ours as one of its registry, tasks
on local files.

Requests are scored and generated many at a time. Of (context, continuation) a byte model scores the
continuation's bytes. A token model reads both as one text and scores the tokens from the one that
holds the continuation's first byte: where a token lies across, it counts whole. The harness splits
ids where the context's own ids end, which may cut a text as no tokenizer would.
`loglikelihood_rolling` gives every byte once, the end of the document not counted.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

from blt_jax.config import ConfigError
from blt_jax.eval import programs
from blt_jax.eval.tasks import CHOICES, EXACT, PROGRAM, TRANSLATION, Task, allowed

try:
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise ConfigError(
        f"tasks need the evaluation harness ({error}): pip install 'blt-jax[eval]'"
    ) from None

BYTES_PER_TOKEN = 4  # of a limit that a task of the harness gives in tokens
TOGETHER = 16  # prompts that are continued at a time


@register_model("blt_jax")
class HarnessModel(LM):
    """A `blt_jax.load`ed model for the harness: `simple_evaluate(model=HarnessModel(m),
    tasks=[...])`.
    """

    def __init__(self, model, seed=0, progress=None):
        super().__init__()
        self.model, self._seed, self._progress = model, seed, progress

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """[(log likelihood in nats of the continuation, whether greedy choice gives it)]."""
        before, texts = zip(
            *((context.encode(), text.encode()) for context, text in _arguments(requests)),
            strict=True,
        )
        scored = self.model.score(list(texts), list(before), greedy=True, tell=self._progress)
        return [(-float(text.nats_N.sum()), bool(text.greedy_N.all())) for text in scored]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """[log likelihood in nats of each text]."""
        texts = [text.encode() for (text,) in _arguments(requests)]
        return [
            -float(text.nats_N.sum())
            for text in self.model.score(texts, [b""] * len(texts), tell=self._progress)
        ]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """[what follows each context, up to `until`]. Prompts of about one length and equal
        settings go together.

        Of a context that is longer than the model's, its end counts (`Model.tail`), as elsewhere in
        the harness.
        """
        arguments = _arguments(requests)
        order = sorted(
            range(len(arguments)),
            key=lambda i: (repr(sorted(arguments[i][1].items())), len(arguments[i][0])),
        )
        texts, done, size = [""] * len(arguments), 0, sum(len(context) for context, _ in arguments)
        while order:
            settings = arguments[order[0]][1]
            some = [i for i in order[:TOGETHER] if arguments[i][1] == settings]
            order = order[len(some) :]
            generated = self.model.generate(
                [self.model.tail(arguments[i][0].encode()) for i in some],
                **self._generate_options(settings),
            )
            for i, text in zip(some, generated, strict=True):
                texts[i] = text.decode("utf-8", "replace")
                done += len(arguments[i][0])
            if self._progress is not None:
                self._progress(done, size)
        return texts

    def _generate_options(self, settings):
        """Arguments of `Model.generate`."""
        until = settings.get("until") or []
        most = settings.get("max_gen_bytes") or BYTES_PER_TOKEN * settings.get("max_gen_toks", 256)
        drawn = settings.get("do_sample", settings.get("temperature", 0) > 0)
        return dict(
            max_new_bytes=most,
            temperature=settings.get("temperature", 1.0) if drawn else 0.0,
            top_p=settings.get("top_p", 1.0),
            seed=self._seed,
            stop=[stop.encode() for stop in ([until] if isinstance(until, str) else until) if stop],
        )


def _arguments(requests):
    return [request.args for request in requests]


# ---------------------------------------------------------------- tasks on local files


def _choices(doc, results):
    """acc: the likeliest choice is right; acc_bytes: the likeliest per byte; answer_bpb: bits per
    byte of the right.
    """
    values = [value for value, _ in results]
    sizes = [len(choice.encode()) for choice in doc["choices"]]
    best = lambda scores: scores.index(max(scores)) == doc["label"]
    bits = -values[doc["label"]] / math.log(2)
    per_byte = [value / size for value, size in zip(values, sizes, strict=True)]
    answer = bits / (1 + sizes[doc["label"]])  # the space before it is scored as well
    return {"acc": float(best(values)), "acc_bytes": float(best(per_byte)), "answer_bpb": answer}


def _exact(doc, results):
    return {"exact_match": float(results[0].strip() == doc["answer"].strip())}


def _translation(doc, results):
    import sacrebleu

    return {"chrf": sacrebleu.sentence_chrf(results[0].strip(), [doc["answer"]]).score}


def _program(doc, results):
    return {"pass@1": float(programs.passes(doc["head"] + results[0] + doc["tail"]))}


MEASURED = {
    CHOICES: (_choices, ("acc", "acc_bytes", "answer_bpb")),
    EXACT: (_exact, ("exact_match",)),
    TRANSLATION: (_translation, ("chrf",)),
    PROGRAM: (_program, ("pass@1",)),
}


def _configured(name, task, documents, most):
    """A task of the harness on these documents."""
    measure, metrics = MEASURED[task.kind]
    config = {
        "task": name,
        "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(documents)},
        "test_split": "test",
        "doc_to_text": lambda doc: doc["prompt"],
        "num_fewshot": 0,
        "process_results": measure,
        "metric_list": [
            {"metric": m, "aggregation": "mean", "higher_is_better": m != "answer_bpb"}
            for m in metrics
        ],
    }
    if task.kind == CHOICES:
        config |= {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
        }
    else:
        answer = "tail" if task.kind == PROGRAM else "answer"
        config |= {"output_type": "generate_until", "doc_to_target": lambda doc: doc[answer]}
        config["generation_kwargs"] = {
            "until": list(task.stop),
            "max_gen_bytes": most or task.most,
            "do_sample": False,
        }
    return ConfigurableTask(config=config)


def run(
    model: Any,
    requested: dict[str, tuple[Task, list[dict]]],
    *,
    execute: bool = False,
    most: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """{label: {"documents": {metric: [value]}, "corpus": {metric: value}}} of {label: (Task, its
    documents)}.

    `execute`: run the programs that a model writes (programs.py). `most`: bytes to generate; 0: the
    task's own. Corpus metrics are those that are no mean over documents: BLEU (13a) and chrF of
    translations. Raises ConfigError for tasks of programs without `execute`.
    """
    allowed(requested, execute)
    if not requested:
        return {}
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    results = simple_evaluate(
        model=HarnessModel(model, seed, progress),
        tasks=[
            _configured(label, task, documents, most)
            for label, (task, documents) in requested.items()
        ],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    scores = {}
    for label, (task, _) in requested.items():
        samples = sorted(results["samples"][label], key=lambda sample: sample["doc_id"])
        metrics = MEASURED[task.kind][1]
        scores[label] = {
            "documents": {
                metric: [float(sample[metric]) for sample in samples] for metric in metrics
            }
        }
        if task.kind == TRANSLATION:
            scores[label]["corpus"] = _corpus(samples)
    return scores


def _corpus(samples):
    import sacrebleu

    generated = [sample["filtered_resps"][0].strip() for sample in samples]
    answers = [[sample["doc"]["answer"] for sample in samples]]
    return {
        "bleu": sacrebleu.corpus_bleu(generated, answers).score,
        "chrf": sacrebleu.corpus_chrf(generated, answers).score,
    }
