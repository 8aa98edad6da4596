"""A BLT as transformers' `blt`: config.json and the names of its tensors."""

from collections.abc import Iterator
from typing import Any

from blt_jax.config import BYTE_VOCAB, ConfigError
from blt_jax.families import Model, hf_settings
from blt_jax.families.blt.config import RELEASED, Blt
from blt_jax.families.hf_settings import refuse, stack_settings
from blt_jax.families.hf_tensors import Tensor, block, layers
from blt_jax.families.lm import hf as lm
from blt_jax.patching import Patching

MODEL_TYPES = ("blt",)
EMBEDDING = "model.local_encoder.embed_tokens.weight"

_LOCAL = hf_settings.STACK | dict(
    vocab_size=BYTE_VOCAB,
    cross_attn_k=2,
    hidden_size_global=2048,
    hidden_size=1024,
    num_attention_heads=16,
    max_position_embeddings=24576,
)
_PARTS = {
    "encoder_config": _LOCAL | dict(cross_attn_all_layers=False, num_hidden_layers=1),
    "decoder_config": _LOCAL
    | dict(cross_attn_all_layers=True, num_hidden_layers=9, intermediate_size=2816),
    "global_config": hf_settings.STACK
    | dict(
        hidden_size=2048,
        num_hidden_layers=25,
        num_attention_heads=16,
        intermediate_size=5632,
        max_position_embeddings=4096,
    ),
}
_WHOLE = dict(
    vocab_size=BYTE_VOCAB,
    max_position_embeddings=4096,
    patch_in_forward=True,
    patch_size=4,
    patching_mode="entropy",
    patching_threshold=1.335442066192627,
    max_patch_length=None,
    local_attention_window_len=512,
    cross_attn_k=2,
    encoder_hash_byte_group_size=None,
    encoder_hash_byte_group_vocab=500002,
    encoder_hash_byte_group_nb_functions=1,
    patcher_config=None,
    encoder_config=None,
    decoder_config=None,
    global_config=None,
    tie_word_embeddings=False,
)
# Keys that this place of the file holds and transformers itself overwrites or never reads.
_UNREAD = {
    "blt": ("rope_parameters", "rope_scaling", "rope_theta"),
    "encoder_config": ("sliding_window", "tie_word_embeddings"),
    "decoder_config": ("sliding_window", "tie_word_embeddings"),
    "global_config": ("encoder_cross_output_size", "tie_word_embeddings"),
}


def read(
    settings: dict[str, Any], where: str, byte_vocab: bool = True
) -> tuple[Blt, Model | None, Patching, int]:
    """See `Model.huggingface`."""
    c = hf_settings.values(settings, _WHOLE, where, _UNREAD["blt"])
    parts = {
        name: hf_settings.values(c[name] or {}, known, f"{where}: {name}", _UNREAD[name])
        for name, known in _PARTS.items()
    }
    patch = lm.patcher_values(c["patcher_config"] or {}, f"{where}: patcher_config")
    encoder, decoder, latent = (
        parts[f"{name}_config"] for name in ("encoder", "decoder", "global")
    )

    def equal(name, value, other, of):
        if value != other:
            raise ConfigError(f"{where}: {name} = {value!r}: must equal {of} = {other!r}")

    for key in ("hidden_size", "num_attention_heads"):
        equal(f"decoder_config.{key}", decoder[key], encoder[key], f"encoder_config.{key}")
    kv = {
        n: parts[f"{n}_config"]["num_key_value_heads"] or encoder["num_attention_heads"]
        for n in ("encoder", "decoder")
    }
    equal(
        "decoder_config.num_key_value_heads",
        kv["decoder"],
        kv["encoder"],
        "encoder_config.num_key_value_heads",
    )
    for name, part in (("encoder_config", encoder), ("decoder_config", decoder)):
        equal(f"{name}.cross_attn_k", part["cross_attn_k"], c["cross_attn_k"], "cross_attn_k")
        equal(
            f"{name}.hidden_size_global",
            part["hidden_size_global"],
            latent["hidden_size"],
            "global_config.hidden_size",
        )
        equal(f"{name}.vocab_size", part["vocab_size"], c["vocab_size"], "vocab_size")
    window = c["local_attention_window_len"]
    window = encoder["max_position_embeddings"] if window is None else window
    stack = lambda name, window: hf_settings.stack(parts[name], f"{where}: {name}", window)
    try:
        model = Blt(
            encoder=stack("encoder_config", window),
            latent=stack("global_config", 0),
            decoder=stack("decoder_config", window),
            slots=c["cross_attn_k"],
            cross_heads=encoder["num_attention_heads"],
            cross_kv_heads=kv["encoder"],
            encoder_cross="all" if encoder["cross_attn_all_layers"] else "last",
            decoder_cross="all" if decoder["cross_attn_all_layers"] else "first",
            hash_sizes=tuple(c["encoder_hash_byte_group_size"] or (3, 4, 5, 6, 7, 8)),
            hash_functions=c["encoder_hash_byte_group_nb_functions"],
            hash_rows=c["encoder_hash_byte_group_vocab"],
            vocab=c["vocab_size"],
            tied=bool(c["tie_word_embeddings"]),
        )
    except ConfigError as error:
        raise ConfigError(
            str(error) if str(error).startswith(where) else f"{where}: {error}"
        ) from None
    # Whatever is not entropy patching is one byte per patch in transformers.
    patcher, rule = None, "byte"
    if c["patch_in_forward"]:
        equal("patcher_config.vocab_size", patch["vocab_size"], c["vocab_size"], "vocab_size")
        patcher = lm.read_patcher(patch, f"{where}: patcher_config")
        rule = "entropy" if c["patching_mode"] == "entropy" else "byte"
    if rule == "entropy" and (c["patch_size"] is None or c["patching_threshold"] is None):
        key = "patch_size" if c["patch_size"] is None else "patching_threshold"
        raise ConfigError(
            f"{where}: {key} = None: entropy patching needs a number (any patch_size; nats)"
        )
    threshold = float(c["patching_threshold"] or 0.0)
    patching = Patching(rule, threshold=threshold, max_length=c["max_patch_length"] or 0)
    return model, patcher, patching, encoder["max_position_embeddings"]


def write(
    model: Blt, patcher: Any = None, patching: Patching | None = None, context: int = 0
) -> dict[str, Any]:
    """See `Model.huggingface`. Raises ConfigError naming what cannot be represented.

    Cross-attention after all encoder layers is written, though with more than one layer
    transformers pools the bytes again after each of them, where we (and the authors' code) pool
    once: there the logits differ.
    """
    m, context = model, context or 24576
    patching = patching or Patching("byte")
    heads = {
        f"{part}.{key}": (getattr(getattr(m, part), key), getattr(m, f"cross_{key}"))
        for part in ("encoder", "decoder")
        for key in ("heads", "kv_heads")
    }
    fixed = RELEASED | dict(hash_scope="row")
    refuse("blt", {key: (getattr(m, key), value) for key, value in fixed.items()})
    refuse(
        "blt",
        heads,
        "it has one number of heads for self- and cross-attention of a local model, so it must be",
    )
    refuse(
        "blt",
        {
            "latent.window": (m.latent.window, 0),
            "decoder.window": (m.decoder.window, m.encoder.window),
        },
    )
    for key, bad in (
        ("encoder_cross", "none"),
        ("decoder_cross", "none"),
        ("hash_sizes", ()),
        ("hash_functions", 0),
    ):
        if getattr(m, key) == bad:
            raise ConfigError(f"saving as blt: {key} = {bad!r}: transformers has no such model")
    if patching.rule not in ("entropy", "byte"):
        raise ConfigError(
            f"saving as blt: patching.rule = {patching.rule!r}: transformers has only 'entropy' "
            "and 'byte'"
        )
    refuse("blt", {"patching.newline_reset": (patching.newline_reset, False)})
    if (patching.rule == "entropy") != (patcher is not None):
        raise ConfigError(
            f"saving as blt: patching.rule = {patching.rule!r} with{'' if patcher else 'out'} a "
            "patcher"
        )
    local = {"cross_attn_k": m.slots, "hidden_size_global": m.latent.width, "vocab_size": m.vocab}
    settings = {
        "architectures": ["BltForCausalLM"],
        "model_type": "blt",
        "dtype": "float32",
        "vocab_size": m.vocab,
        "max_position_embeddings": context,
        "patch_in_forward": patcher is not None,
        "patch_size": 4,
        "patching_mode": patching.rule,
        "patching_threshold": patching.threshold,
        "max_patch_length": patching.max_length or None,
        "local_attention_window_len": m.encoder.window,
        "cross_attn_k": m.slots,
        "encoder_hash_byte_group_size": list(m.hash_sizes),
        "encoder_hash_byte_group_vocab": m.hash_rows,
        "encoder_hash_byte_group_nb_functions": m.hash_functions,
        "encoder_config": stack_settings(m.encoder, context)
        | local
        | {"cross_attn_all_layers": m.encoder_cross == "all", "model_type": "blt_local_encoder"},
        "decoder_config": stack_settings(m.decoder, context)
        | local
        | {"cross_attn_all_layers": m.decoder_cross == "all", "model_type": "blt_local_decoder"},
        "global_config": stack_settings(m.latent, context)
        | {"model_type": "blt_global_transformer"},
        "tie_word_embeddings": m.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if patcher is not None:
        settings["patcher_config"] = lm.write_patcher(patcher, m.vocab, context)
    return settings


def _cross(prefix, path, layer=None) -> Iterator[Tensor]:
    for name in "qkv":
        yield Tensor(f"{prefix}.{name}_proj.weight", (*path, name, "kernel"), layer)
    yield Tensor(f"{prefix}.o_proj.weight", (*path, "o", "kernel"), layer, inputs=2)
    for ours, theirs in {"query_norm": "q_norm", "context_norm": "k_norm"}.items():
        yield Tensor(f"{prefix}.{theirs}.weight", (*path, ours, "scale"), layer, inputs=0)


def tensors(config: Blt, patcher: bool = False) -> list[Tensor]:
    """See `Model.huggingface`; a BLT is nobody's entropy model."""
    return list(_tensors(config))


def _tensors(c):
    e, d, latent = "model.local_encoder", "model.local_decoder", "model.global_transformer"
    yield Tensor(f"{e}.embed_tokens.weight", ("encoder", "embedding"), inputs=0)
    yield Tensor("model.encoder_hash_tok_embedding.weight", ("encoder", "hash", "tables"), inputs=0)
    yield Tensor(f"{e}.patch_embedding_projection.weight", ("encoder", "query", "kernel"))
    if c.encoder_cross == "all":
        for i in range(c.encoder.layers):
            yield from block(f"{e}.layers.{i}", ("encoder", f"layer_{i}"), None)
            yield from _cross(f"{e}.cross_attn_layers.{i}", ("encoder", f"cross_{i}"))
    else:
        yield from layers(e, ("encoder", "stack"), c.encoder.layers)
        yield from _cross(f"{e}.cross_attn_layers.0", ("encoder", "cross"))
    if c.slots_width != c.latent.width:
        yield Tensor(f"{latent}.token_embedding_projection.weight", ("to_latent", "kernel"))
    yield from layers(latent, ("latent",), c.latent.layers)
    yield Tensor(f"{d}.patch_embedding_projection.weight", ("decoder", "from_latent", "kernel"))
    if c.decoder_cross == "all":
        for i in range(c.decoder.layers):
            yield from block(f"{d}.layers.{i}", ("decoder", "layers", "block"), i)
            yield from _cross(f"{d}.cross_attn_layers.{i}", ("decoder", "layers", "cross"), i)
    else:
        yield from layers(d, ("decoder", "stack"), c.decoder.layers)
        yield from _cross(f"{d}.cross_attn_layers.0", ("decoder", "cross"))
    yield Tensor(f"{d}.norm.weight", ("decoder", "norm", "scale"), inputs=0)
    if not c.tied:
        yield Tensor("lm_head.weight", ("decoder", "head", "kernel"))
