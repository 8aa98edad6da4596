"""Hugging Face directories (config.json and safetensors): load and save, of every family that has
a form for transformers (`families.Model.huggingface`).
"""

import dataclasses
import functools
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.families import FAMILIES, Model, hf_tensors, network
from blt_jax.interop.tensor_files import Weights, save_weights
from blt_jax.patching import Patching
from blt_jax.storage import write_json

# Buffers that older files hold and that the config already says.
_DERIVED = re.compile(r".*rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a directory holds. Parameter trees are those of `network.init`, float32 NumPy."""

    model: Model
    params: dict[str, Any]
    patcher: Model | None  # the entropy model inside a BLT
    patcher_params: dict[str, Any] | None
    patching: Patching | None  # None: not a BLT
    context: int  # positions of a row that the model was made for


def load(folder: str | Path) -> Pretrained:
    """The `Pretrained` of a directory. float16 and bfloat16 weights become float32.

    Raises ConfigError, in one line, for a setting that cannot be honoured, and for a tensor that is
    missing, left over or of another shape.
    """
    folder = Path(folder)
    model, patcher, patching, context = read_config(folder)
    weights, where = Weights(folder), str(folder)
    table = _form(model).tensors(model)
    patcher_table = [] if patcher is None else _form(patcher).tensors(patcher, patcher=True)
    known = {tensor.name for tensor in [*table, *patcher_table]}
    tied = _tied(weights, model, where)
    extra = sorted(
        name
        for name in weights
        if name not in known and name not in tied and not _DERIVED.fullmatch(name)
    )
    if extra:
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise ConfigError(
            f"{where}: tensor {extra[0]} has no place in the model of config.json{more}"
        )
    shapes = network.shapes(model)
    params = hf_tensors.to_params(_Renamed(weights, tied), table, shapes, where)
    patcher_params = None
    if patcher is not None:
        shapes = network.shapes(patcher)
        patcher_params = hf_tensors.to_params(weights, patcher_table, shapes, where)
    return Pretrained(model, params, patcher, patcher_params, patching, context)


def load_settings(path: Any) -> dict[str, Any]:
    """The parsed JSON object at `path`; ConfigError in one line if there is none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or 'no such file').lower()}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: must hold a JSON object")
    return settings


def read_config(folder: str | Path) -> tuple[Model, Model | None, Patching | None, int]:
    """As `read_settings`, of a directory's config.json."""
    path = Path(folder) / "config.json"
    byte_vocab = not path.with_name("tokenizer.json").exists()
    return read_settings(load_settings(path), str(path), byte_vocab)


def read_settings(
    settings: dict[str, Any], where: str = "config.json", byte_vocab: bool = True
) -> tuple[Model, Model | None, Patching | None, int]:
    """(model, entropy model or None, Patching or None, context in positions) of a parsed
    config.json.

    `byte_vocab`: whether a vocabulary of 260 entries is bytes (there is no tokenizer). Raises
    ConfigError naming the key that cannot be honoured.
    """
    forms = filter(None, (Model.of_kind(kind).huggingface() for kind in FAMILIES))
    known = {model_type: form for form in forms for model_type in form.MODEL_TYPES}
    kind = settings.get("model_type")
    if kind not in known:
        raise ConfigError(
            f"{where}: model_type = {kind!r}: must be one of {', '.join(sorted(known))}"
        )
    return known[kind].read(settings, where, byte_vocab)


def _form(model: Model) -> ModuleType:
    """The module of its family that reads and writes it."""
    form = model.huggingface()
    if form is None:
        raise ConfigError(
            f"{model.describe()} (kind {model.kind!r}): transformers has no such model"
        )
    return form


def _tied(weights, model, where):
    """{name that may be absent: name that stands for it} of a tied model: files keep one of the
    two, or both.
    """
    if not model.tied:
        return {}
    head, embedding = "lm_head.weight", _form(model).EMBEDDING
    if (
        head in weights
        and embedding in weights
        and not np.array_equal(weights[head], weights[embedding])
    ):
        raise ConfigError(
            f"{where}: tie_word_embeddings is true, but {head} and {embedding} differ"
        )
    return {head: embedding, embedding: head}


class _Renamed:
    """Weights in which an absent tied name reads the other one."""

    def __init__(self, weights, tied):
        self.weights, self.tied = weights, tied

    def _name(self, name):
        return name if name in self.weights else self.tied.get(name, name)

    def __contains__(self, name):
        return self._name(name) in self.weights

    def __getitem__(self, name):
        return self.weights[self._name(name)]


def save(
    folder: str | Path,
    model: Model,
    params: dict[str, Any],
    patcher: Model | None = None,
    patcher_params: dict[str, Any] | None = None,
    patching: Patching | None = None,
    context: int = 0,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """Writes a directory that `BltForCausalLM.from_pretrained` or
    `LlamaForCausalLM.from_pretrained` loads, float32.

    `patching`: rule "entropy" needs `patcher`; None or rule "byte": transformers patches byte by
    byte unless it is given patch_lengths. `context`: positions, for max_position_embeddings (0:
    transformers' default). Weights beyond `max_shard_bytes` are split into shards. config.json is
    written last. Raises ConfigError, naming the field, for a model that transformers cannot
    represent.
    """
    settings = _form(model).write(model, patcher, patching, context)

    def named() -> Iterator[tuple[str, np.ndarray]]:
        table = _form(model).tensors(model)
        yield from hf_tensors.from_params(params, table, network.shapes(model))
        if model.tied:  # both names: transformers ties them in either direction
            embedding = functools.reduce(operator.getitem, model.embedding_path, params)
            yield "lm_head.weight", np.ascontiguousarray(embedding, np.float32)
        if patcher is not None:
            table = _form(patcher).tensors(patcher, patcher=True)
            yield from hf_tensors.from_params(patcher_params, table, network.shapes(patcher))

    save_weights(folder, named(), max_shard_bytes)
    write_json(Path(folder) / "config.json", settings)
