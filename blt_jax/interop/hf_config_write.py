"""Our model config and patching -> config.json of Hugging Face transformers (`blt`, `llama`); see
`hf_config`.
"""

from blt_jax.config import ConfigError, Stack
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching


def write(model, patcher=None, patching=None, context=0):
    """config.json, a dict, that transformers loads; ConfigError names what it cannot represent.

    Cross-attention after all encoder layers is written, though with more than one layer
    transformers pools the bytes again after each of them, where we (and the authors' code) pool
    once: there the logits differ.
    """
    if isinstance(model, Lm):
        if patcher is not None or patching is not None:
            raise ConfigError(
                "saving as llama: patcher and patching belong to BLT models; leave them out"
            )
        _refuse("llama", {"stack.window": (model.stack.window, 0)})
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": "float32",
            "vocab_size": model.vocab,
            **_stack_settings(model.stack, context or 2048),
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": model.tied,
            "bos_token_id": 1 if model.unit == "byte" else None,
            "eos_token_id": 2 if model.unit == "byte" else None,
        }
    m, context = model, context or 24576
    patching = patching or Patching("byte")
    heads = {
        f"{part}.{key}": (getattr(getattr(m, part), key), getattr(m, f"cross_{key}"))
        for part in ("encoder", "decoder")
        for key in ("heads", "kv_heads")
    }
    fixed = dict(
        cross_residual="double",
        pool_from="states",
        hash_norm=False,
        hash_short="pad",
        hash_order="oldest",
    )
    fixed |= dict(hash_scope="row")
    _refuse("blt", {key: (getattr(m, key), value) for key, value in fixed.items()})
    _refuse(
        "blt",
        heads,
        "it has one number of heads for self- and cross-attention of a local model, so it must be",
    )
    _refuse(
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
    _refuse("blt", {"patching.newline_reset": (patching.newline_reset, False)})
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
        "encoder_config": _stack_settings(m.encoder, context)
        | local
        | {"cross_attn_all_layers": m.encoder_cross == "all", "model_type": "blt_local_encoder"},
        "decoder_config": _stack_settings(m.decoder, context)
        | local
        | {"cross_attn_all_layers": m.decoder_cross == "all", "model_type": "blt_local_decoder"},
        "global_config": _stack_settings(m.latent, context)
        | {"model_type": "blt_global_transformer"},
        "tie_word_embeddings": m.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if patcher is not None:
        _refuse(
            "blt",
            {"patcher.tied": (patcher.tied, False), "patcher.vocab": (patcher.vocab, m.vocab)},
        )
        settings["patcher_config"] = _stack_settings(patcher.stack, context) | {
            "vocab_size": patcher.vocab,
            "sliding_window": patcher.stack.window or None,
            "model_type": "blt_patcher",
        }
        del settings["patcher_config"]["hidden_act"]  # fixed there
    return settings


def _refuse(kind, pairs, why="transformers has only"):
    for key, (value, supported) in pairs.items():
        if value != supported:
            raise ConfigError(f"saving as {kind}: {key} = {value!r}: {why} {supported!r}")


def _stack_settings(s: Stack, context):
    rope = {"rope_type": "default", "rope_theta": s.rope_theta}
    if s.rope_scaling:
        factor, low, high, length = s.rope_scaling
        rope |= {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
        }
        rope |= {"original_max_position_embeddings": int(length)}
    return {
        "hidden_size": s.width,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "intermediate_size": s.ffn,
        "head_dim": s.head_width,
        "rms_norm_eps": s.norm_eps,
        "max_position_embeddings": context,
        "rope_parameters": rope,
        "hidden_act": "silu",
    }
