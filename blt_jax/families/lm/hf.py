"""An LM as transformers' `llama`, or as the entropy model inside its `blt`."""

from typing import Any

from blt_jax.config import BYTE_VOCAB, ConfigError
from blt_jax.families import hf_settings
from blt_jax.families.hf_tensors import Tensor, layers
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching

MODEL_TYPES = ("llama",)
EMBEDDING = "model.embed_tokens.weight"
THETA = 10_000.0  # transformers' default of rope_theta, in both roles

_LLAMA = hf_settings.STACK | dict(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    max_position_embeddings=2048,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
)
_PATCHER = hf_settings.STACK | dict(
    vocab_size=BYTE_VOCAB,
    hidden_size=768,
    num_hidden_layers=14,
    num_attention_heads=12,
    intermediate_size=2048,
    max_position_embeddings=8192,
    sliding_window=512,
)


def read(
    settings: dict[str, Any], where: str, byte_vocab: bool = True
) -> tuple[Lm, None, None, int]:
    """See `Model.huggingface`. `byte_vocab`: whether a Llama of 260 entries is a byte LM (it has no
    tokenizer of its own).
    """
    c = hf_settings.values(settings, _LLAMA, where)
    byte = byte_vocab and c["vocab_size"] == BYTE_VOCAB
    model = Lm(
        hf_settings.stack(c, where, theta=THETA),
        vocab=c["vocab_size"],
        unit="byte" if byte else "token",
        tied=bool(c["tie_word_embeddings"]),
    )
    return model, None, None, c["max_position_embeddings"]


def patcher_values(settings: Any, where: str) -> dict[str, Any]:
    """The honoured keys of the entropy model inside another model's config.json."""
    return hf_settings.values(settings, _PATCHER, where, ("tie_word_embeddings",))


def read_patcher(c: dict[str, Any], where: str) -> Lm:
    """The entropy model of what `patcher_values` gave."""
    return Lm(hf_settings.stack(c, where, c["sliding_window"] or 0, THETA))


def write(
    model: Lm, patcher: Any = None, patching: Patching | None = None, context: int = 0
) -> dict[str, Any]:
    """See `Model.huggingface`. Raises ConfigError naming what cannot be represented."""
    if patcher is not None or patching is not None:
        raise ConfigError(
            "saving as llama: patcher and patching belong to BLT models; leave them out"
        )
    hf_settings.refuse("llama", {"stack.window": (model.stack.window, 0)})
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": model.vocab,
        **hf_settings.stack_settings(model.stack, context or 2048),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": model.tied,
        "bos_token_id": 1 if model.unit == "byte" else None,
        "eos_token_id": 2 if model.unit == "byte" else None,
    }


def write_patcher(patcher: Lm, vocab: int, context: int) -> dict[str, Any]:
    """The object of an entropy model inside a `blt`."""
    fixed = {"patcher.tied": (patcher.tied, False), "patcher.vocab": (patcher.vocab, vocab)}
    hf_settings.refuse("blt", fixed)
    settings = hf_settings.stack_settings(patcher.stack, context) | {
        "vocab_size": patcher.vocab,
        "sliding_window": patcher.stack.window or None,
        "model_type": "blt_patcher",
    }
    del settings["hidden_act"]  # fixed there
    return settings


def tensors(config: Lm, patcher: bool = False) -> list[Tensor]:
    """The Tensors of a Llama or, with `patcher`, of the entropy model inside a BLT."""
    prefix = "model.patcher" if patcher else "model"
    table = [Tensor(f"{prefix}.embed_tokens.weight", ("embedding",), inputs=0)]
    table += layers(prefix, ("stack",), config.stack.layers, half_split=not patcher)
    table.append(Tensor(f"{prefix}.norm.weight", ("norm", "scale"), inputs=0))
    if not config.tied:
        head = "model.patcher.lm_head.weight" if patcher else "lm_head.weight"
        table.append(Tensor(head, ("head", "kernel")))
    return table
