"""Hugging Face directories (config.json and safetensors) of `blt` and `llama` models: load and
save.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from blt_jax.config import ConfigError
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import hf_config, hf_config_write, hf_weights
from blt_jax.interop.tensor_files import Weights, save_weights
from blt_jax.patching import Patching
from blt_jax.storage import write_json

# Buffers that older files hold and that the config already says.
_DERIVED = re.compile(r".*rotary_emb\.inv_freq")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What a directory holds. Parameter trees are those of `network.init`, float32 NumPy."""

    model: Blt | Lm
    params: dict
    patcher: Lm | None  # the entropy model inside a BLT
    patcher_params: dict | None
    patching: Patching | None  # None: not a BLT
    context: int  # positions of a row that the model was made for


def load(folder):
    """The `Pretrained` of a directory. float16 and bfloat16 weights become float32.

    Raises ConfigError, in one line, for a setting that cannot be honoured, and for a tensor that is
    missing, left over or of another shape.
    """
    folder = Path(folder)
    model, patcher, patching, context = read_config(folder)
    weights = Weights(folder)
    where = str(folder)
    known = {tensor.name for tensor in hf_weights.tensors(model)}
    if patcher is not None:
        known |= {tensor.name for tensor in hf_weights.tensors(patcher, patcher=True)}
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
    params = hf_weights.model_params(_Renamed(weights, tied), model, where=where)
    patcher_params = patcher and hf_weights.model_params(
        weights, patcher, patcher=True, where=where
    )
    return Pretrained(model, params, patcher, patcher_params, patching, context)


def read_config(folder):
    """(model, patcher, patching, context) of a directory's config.json; see `hf_config.read`."""
    folder = Path(folder)
    path = folder / "config.json"
    byte_vocab = not (folder / "tokenizer.json").exists()
    return hf_config.read(hf_config.load_settings(path), str(path), byte_vocab)


def _embedding_name(model):
    return (
        "model.local_encoder.embed_tokens.weight"
        if isinstance(model, Blt)
        else "model.embed_tokens.weight"
    )


def _tied(weights, model, where):
    """{name that may be absent: name that stands for it} of a tied model: files keep one of the
    two, or both.
    """
    if not model.tied:
        return {}
    head, embedding = "lm_head.weight", _embedding_name(model)
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
    folder,
    model,
    params,
    patcher=None,
    patcher_params=None,
    patching=None,
    context=0,
    max_shard_bytes=5_000_000_000,
):
    """Writes a directory that `BltForCausalLM.from_pretrained` or
    `LlamaForCausalLM.from_pretrained` loads, float32.

    `patching`: rule "entropy" needs `patcher`; None or rule "byte": transformers patches byte by
    byte unless it is given patch_lengths. `context`: positions, for max_position_embeddings (0:
    transformers' default). Weights beyond `max_shard_bytes` are split into shards. config.json is
    written last. Raises ConfigError, naming the field, for a model that transformers cannot
    represent (see `hf_config_write.write`).
    """
    settings = hf_config_write.write(model, patcher, patching, context)
    folder = Path(folder)

    def named():
        yield from hf_weights.from_params(params, hf_weights.tensors(model), network.shapes(model))
        if model.tied:  # both names: transformers ties them in either direction
            embedding = (
                params["encoder"]["embedding"] if isinstance(model, Blt) else params["embedding"]
            )
            yield "lm_head.weight", np.ascontiguousarray(embedding, np.float32)
        if patcher is not None:
            table = hf_weights.tensors(patcher, patcher=True)
            yield from hf_weights.from_params(patcher_params, table, network.shapes(patcher))

    save_weights(folder, named(), max_shard_bytes)
    write_json(folder / "config.json", settings)
