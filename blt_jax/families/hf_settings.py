"""config.json of Hugging Face transformers: what families share in reading and writing its keys.

Every key is honoured, or known to change no number, or refused by name: a model never loads as a
slightly different one. Absent keys have transformers' defaults (release 5.23).
"""

from collections.abc import Collection, Mapping
from typing import Any

from blt_jax.config import ConfigError, Stack

ROPE_TYPES = ("default", "llama3")

# Keys of a stack of layers that we read, with their defaults; None: see `stack`.
STACK: dict[str, Any] = dict(
    hidden_size=None,
    num_hidden_layers=None,
    num_attention_heads=None,
    num_key_value_heads=None,
    intermediate_size=None,
    head_dim=None,
    rms_norm_eps=1e-5,
    max_position_embeddings=None,
    rope_parameters=None,
    rope_scaling=None,  # older files keep the rotary settings in these two
    rope_theta=None,
)
NEEDED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "vocab_size",
)
_WHOLE = """
    num_key_value_heads intermediate_size head_dim cross_attn_k hidden_size_global sliding_window
    max_patch_length patch_size local_attention_window_len encoder_hash_byte_group_vocab
    encoder_hash_byte_group_nb_functions
""".split()
TYPES: dict[str, tuple[type, ...]] = {
    **{key: (int,) for key in (*NEEDED, *_WHOLE)},
    **{key: (int, float) for key in ("rms_norm_eps", "rope_theta", "patching_threshold")},
    **{key: (dict,) for key in ("rope_parameters", "rope_scaling")},
    "encoder_hash_byte_group_size": (list, tuple),
}

# Keys that may stand there with these values only: others would be another model.
ONLY: dict[str, tuple[Any, ...]] = dict(
    hidden_act=("silu",),
    dropout=(0, None),
    attention_dropout=(0, None),
    attention_bias=(False,),
    mlp_bias=(False,),
    pretraining_tp=(1, None),
    partial_rotary_factor=(1, None),
    is_encoder_decoder=(False,),
    add_cross_attention=(False,),
    pruned_heads=({}, None),
    quantization_config=(None,),
    per_layer_config=(None, {}),
    pm_size=(0, None),
    monotonicity=(False, None),
    # Llama; the patcher's is honoured, the local models' is overwritten by their window
    sliding_window=(None,),
)
# Keys that transformers writes and that change no number here: names, types, caches, losses,
# defaults of generation.
IGNORED = frozenset(
    """
    model_type architectures transformers_version _name_or_path name_or_path dtype torch_dtype
    initializer_range use_cache pad_token_id bos_token_id eos_token_id sep_token_id
    decoder_start_token_id return_dict output_hidden_states output_attentions
    chunk_size_feed_forward id2label label2id num_labels problem_type finetuning_task
    task_specific_params tokenizer_class prefix torchscript use_bfloat16 tf_legacy_loss
    tie_encoder_decoder cross_attention_hidden_size tie_last_hidden_states _attn_implementation
    attn_implementation _attn_implementation_autoset attn_impl attn_bias_type auto_map
    is_decoder max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
    output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    patching_batch_size patching_device patching_threshold_add realtime_patching
    """.split()
)


def values(
    settings: Any, known: Mapping[str, Any], where: str, unread: Collection[str] = ()
) -> dict[str, Any]:
    """The keys `known` (with their defaults) of one object of the file; refuses what is unknown or
    would differ. `unread`: keys that this place of the file holds and transformers itself
    overwrites or never reads.
    """
    if not isinstance(settings, dict):
        raise ConfigError(f"{where} = {settings!r}: must be an object")
    read = dict(known)
    for key, value in settings.items():
        if key in known:
            absent = value is None and key in ("rms_norm_eps", "vocab_size")
            read[key] = known[key] if absent else value
        elif key == "norm_eps" and value == settings.get("rms_norm_eps", value):
            pass  # an older spelling, which transformers does not read
        elif key in unread or key in IGNORED:
            pass
        elif key in ONLY:
            if value not in ONLY[key]:
                allowed = " or ".join(map(repr, ONLY[key]))
                raise ConfigError(f"{where}: {key} = {value!r}: only {allowed} is supported")
        else:
            raise ConfigError(
                f"{where}: {key} = {value!r}: unknown key, it may change the model; remove it if "
                "it does not"
            )
    for key, value in read.items():
        kinds = TYPES.get(key, ())
        wrong = (
            value is not None
            and kinds
            and (not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds)
        )
        if wrong or (value is None and key in NEEDED):
            raise ConfigError(
                f"{where}: {key} = {value!r}: must be {' or '.join(k.__name__ for k in kinds)}"
            )
    return read


def _rope(c, theta_default, where):
    """(theta, scaling) as transformers resolves them: rope_scaling over rope_parameters, then
    rope_theta.
    """
    rope = c["rope_scaling"] or c["rope_parameters"] or {}
    key = "rope_scaling" if c["rope_scaling"] else "rope_parameters"
    theta = rope.get("rope_theta", c["rope_theta"])
    theta = theta_default if theta is None else theta
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ROPE_TYPES:
        raise ConfigError(
            f"{where}: {key}.rope_type = {kind!r}: must be one of {', '.join(ROPE_TYPES)}"
        )
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    known = {"rope_theta", "rope_type", "type", "partial_rotary_factor", *names}
    for name, value in rope.items():
        if name not in known or (name == "partial_rotary_factor" and value not in (1, None)):
            raise ConfigError(f"{where}: {key}.{name} = {value!r}: not supported")
    if kind == "default":
        return float(theta), ()
    rope = {"original_max_position_embeddings": c["max_position_embeddings"]} | rope
    for name in names:
        if not isinstance(rope.get(name), (int, float)):
            raise ConfigError(
                f"{where}: {key}.{name} = {rope.get(name)!r}: rope_type 'llama3' needs a number"
            )
    return float(theta), tuple(float(rope[name]) for name in names)


def stack(c: Mapping[str, Any], where: str, window: int = 0, theta: float = 500_000.0) -> Stack:
    """The Stack of what `values` gave. `theta`: transformers' default of rope_theta there."""
    heads, width = c["num_attention_heads"], c["hidden_size"]
    theta, scaling = _rope(c, theta, where)
    try:
        made = Stack(
            c["num_hidden_layers"],
            width,
            heads,
            kv_heads=c["num_key_value_heads"] or heads,
            ffn=c["intermediate_size"] or int(8 * width / 3),
            window=window,
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=float(c["rms_norm_eps"]),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if c["head_dim"] not in (None, made.head_width):
        raise ConfigError(
            f"{where}: head_dim = {c['head_dim']}: must be hidden_size / heads = {made.head_width}"
        )
    return made


# ---------------------------------------------------------------- writing


def refuse(
    kind: str, pairs: Mapping[str, tuple[Any, Any]], why: str = "transformers has only"
) -> None:
    """Raises ConfigError for the first field of {field: (its value, the only one that can be
    saved)} that differs.
    """
    for key, (value, supported) in pairs.items():
        if value != supported:
            raise ConfigError(f"saving as {kind}: {key} = {value!r}: {why} {supported!r}")


def stack_settings(s: Stack, context: int) -> dict[str, Any]:
    """The keys of a stack of layers. `context`: positions, for max_position_embeddings."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": s.rope_theta}
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
