"""Texts to score, and what a model makes of them: bits, bytes and units (patches, tokens, bytes) of
each document.

Every byte is scored once, each document by itself, with its end; long ones by windows
(`likelihood.py`). Numbers stay by document, in columns, so that whoever reads them can group and
resample them.
"""

import copy
import dataclasses
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blt_jax.config import ConfigError, Data
from blt_jax.data import mixture, sources
from blt_jax.eval import noise
from blt_jax.flops import analytic

LABELS = ("source", "lang", "script")
LOOKED_AT = 1000  # leading characters that decide a document's script
SAMPLE = 64  # texts whose entropies set thresholds


@dataclasses.dataclass(frozen=True)
class Text:
    data: bytes
    labels: dict  # by LABELS; "" where nothing is known


def read(pattern: str, most: int = 0) -> tuple[list[Text], list[str]]:
    """([Text] of a glob of .jsonl[.gz|.zst], .parquet or .txt, lines on what was left out).

    `most`: bytes to read at most, of documents spread evenly over all; 0: all. A record's own
    fields `source`, `lang` and `script` are its labels; without a script its letters decide. Raises
    ConfigError for a glob without files or with nothing to score.
    """
    data, skips, lines = Data(input=pattern), sources.Skips(), []

    def documents(skips):
        for file in sources.files(data):
            yield from sources.documents(file, data, skips, LABELS[1:])

    if most:  # what is not scored is read twice, so that a large corpus need not fit into memory
        sizes = [len(document.text) for document in documents(skips)]
        kept = _spread(sizes, most)
        texts = [
            _text(document) for i, document in enumerate(documents(sources.Skips())) if i in kept
        ]
        if len(kept) < len(sizes):
            lines = [
                f"{len(sizes) - len(kept):,} of {len(sizes):,} documents, spread evenly: "
                f"max_bytes = {most:,}"
            ]
    else:
        texts = [_text(document) for document in documents(skips)]
    skips.check()
    if not texts:
        why = "; ".join(skips.lines()) or f"no document within {most:,} bytes; raise --max_bytes"
        raise ConfigError(f"--input={pattern}: nothing to score: {why}")
    return texts, skips.lines() + lines


def _spread(sizes, most):
    """Indices of documents of at most `most` bytes in all, evenly in their list."""
    kept, size = set(), 0
    for i in np.argsort(mixture.phases(len(sizes))):
        if size + sizes[i] <= most:
            kept.add(int(i))
            size += sizes[i]
    return kept


def _text(document):
    lang, script = document.labels or ("", "")
    return Text(
        document.text,
        {"source": document.source, "lang": lang, "script": script or script_of(document.text)},
    )


def script_of(text: bytes) -> str:
    """The writing system of most letters, as Unicode names them ("latin", "devanagari"); "" where
    there are none.
    """
    counts: dict[str, int] = {}
    for c in text[: 4 * LOOKED_AT].decode("utf-8", "ignore")[:LOOKED_AT]:
        if c.isalpha():
            name = unicodedata.name(c, "unnamed").split()[0].lower()
            counts[name] = counts.get(name, 0) + 1
    return max(counts, key=lambda script: counts[script], default="")


def lines(text: bytes) -> int:
    """Lines that hold anything, at least 1."""
    return max(1, sum(bool(line.strip()) for line in text.splitlines()))


def measure(
    model: Any, texts: Sequence[bytes], progress: Callable[[int, int], None] | None = None
) -> dict[str, list]:
    """Columns by document of a list of bytes: `bits`, `bytes`, `units`. `progress(done, of)`:
    bytes.
    """
    size = sum(map(len, texts))
    in_bytes = (
        None if progress is None else lambda done, of: progress(done * size // max(of, 1), size)
    )
    scored = model.score(texts, tell=in_bytes)
    return {
        "bits": [score.bits for score in scored],
        "bytes": [len(text) for text in texts],
        "units": [score.units for score in scored],
    }


def robustness(
    model: Any,
    texts: Sequence[bytes],
    names: Sequence[str],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """{"bytes", "characters" of the clean texts, "clean": columns, NAME of each noise: columns}, by
    document.

    What is scored is the noised text; divided by the clean one's bytes its bits are comparable
    between noises that change lengths, divided by its own they are bits per byte of what was read.
    """
    wanted = {"clean": texts} | {
        name: [noise.noised(text, name, seed) for text in texts] for name in names
    }
    columns = measure(model, [text for some in wanted.values() for text in some], progress)
    cut = lambda i: {key: values[i * len(texts) :][: len(texts)] for key, values in columns.items()}
    counts = {
        "bytes": [len(text) for text in texts],
        "characters": [noise.characters(text) for text in texts],
    }
    return counts | {name: cut(i) for i, name in enumerate(wanted)} | {"seed": seed}


def flops_per_byte(model: Any, columns: dict[str, list]) -> dict[str, float]:
    """Forward FLOPs per byte at the units of these columns, "exact": {"model", "entropy_model",
    "total"}.
    """
    own = sum(columns["bytes"]) / max(sum(columns["units"]), 1)
    context = model.context * (own if model.config.reads == "token" else 1)
    rule = model.patching
    scorer = rule is not None and rule.needs_entropies and model.patcher is not None
    parts = {"model": (model.config, own)} | (
        {"entropy_model": (model.patcher, 1)} if scorer else {}
    )
    flops = {"model": 0.0, "entropy_model": 0.0}
    for part, (config, size) in parts.items():
        flops[part] = analytic.per_byte(
            config, patch_size=size, context_bytes=context, convention="exact"
        ).total
    return flops | {"total": sum(flops.values())}


def threshold_sweep(
    model: Any,
    texts: Sequence[bytes],
    thresholds: Sequence[float],
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """[{"threshold", columns, "flops_per_byte"}] of an entropy-patched model, its threshold set
    anew each time.

    Raises ConfigError for a model whose patches ask for no threshold.
    """
    if model.patching is None or not model.patching.has_threshold:
        raise ConfigError(
            f"{model.folder}: a threshold can be set only where entropies cut patches"
        )
    sweep, size = [], len(thresholds)
    for i, threshold in enumerate(thresholds):
        adjusted = copy.copy(model)
        adjusted.patching = dataclasses.replace(
            model.patching, threshold=float(threshold), target=0.0
        )
        overall = (
            None if progress is None else lambda done, of, i=i: progress(i * of + done, size * of)
        )
        columns = measure(adjusted, texts, overall)
        sweep.append(
            {"threshold": float(threshold)}
            | columns
            | {"flops_per_byte": flops_per_byte(model, columns)}
        )
    return sweep


def thresholds(
    model: Any, texts: Sequence[bytes], sizes: Sequence[float] = (1.5, 2, 3, 4, 6, 8, 12)
) -> list[float]:
    """Thresholds at which patches of these texts are about so long, and the model's own: ascending.

    From the entropies of up to a context of some SAMPLE texts; patches that a text's beginning
    forces do not count.
    """
    rows = [model.encode(text)[: model.context] for text in texts[:: max(1, len(texts) // SAMPLE)]]
    values = np.concatenate([model.entropies(row[None])[0] for row in rows])
    quantiles = {float(np.quantile(values, 1 - 1 / size)) for size in sizes}
    return sorted(quantiles | {model.patching.threshold})
