"""config.json of Hugging Face transformers (model types `blt` and `llama`) -> our model config and
patching.

Every key is honoured, or known to change no number, or refused by name: a model never loads as a
slightly different one. Absent keys have transformers' defaults (release 5.23).
"""

import json

from blt_jax.config import BYTE_VOCAB, ConfigError, Stack
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching

MODEL_TYPES = ("blt", "llama")
ROPE_TYPES = ("default", "llama3")

# Keys of a stack of layers that we read, with their defaults; None: see `_stack`.
_STACK = dict(
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
_LOCAL = _STACK | dict(
    vocab_size=BYTE_VOCAB,
    cross_attn_k=2,
    hidden_size_global=2048,
    hidden_size=1024,
    num_attention_heads=16,
    max_position_embeddings=24576,
)
_DEFAULTS = {
    "encoder_config": _LOCAL | dict(cross_attn_all_layers=False, num_hidden_layers=1),
    "decoder_config": _LOCAL
    | dict(cross_attn_all_layers=True, num_hidden_layers=9, intermediate_size=2816),
    "global_config": _STACK
    | dict(
        hidden_size=2048,
        num_hidden_layers=25,
        num_attention_heads=16,
        intermediate_size=5632,
        max_position_embeddings=4096,
    ),
    "patcher_config": _STACK
    | dict(
        vocab_size=BYTE_VOCAB,
        hidden_size=768,
        num_hidden_layers=14,
        num_attention_heads=12,
        intermediate_size=2048,
        max_position_embeddings=8192,
        sliding_window=512,
    ),
    "blt": dict(
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
    ),
    "llama": _STACK
    | dict(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    ),
}
_THETA = {"llama": 10_000.0, "patcher_config": 10_000.0}  # others 500,000

# Keys that may stand there with these values only: others would be another model.
_ONLY = dict(
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
    sliding_window=(
        None,
    ),  # Llama; the patcher's is honoured, the local models' is overwritten by their window
)
# Keys that transformers writes and that change no number here: names, types, caches, losses,
# defaults of generation.
_IGNORED = frozenset(
    """
    model_type architectures transformers_version _name_or_path name_or_path dtype torch_dtype initializer_range
    use_cache pad_token_id bos_token_id eos_token_id sep_token_id decoder_start_token_id return_dict
    output_hidden_states output_attentions chunk_size_feed_forward id2label label2id num_labels problem_type
    finetuning_task task_specific_params tokenizer_class prefix torchscript use_bfloat16 tf_legacy_loss
    tie_encoder_decoder cross_attention_hidden_size tie_last_hidden_states _attn_implementation attn_implementation
    _attn_implementation_autoset attn_impl attn_bias_type auto_map is_decoder max_length min_length do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
    output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens patching_batch_size patching_device
    patching_threshold_add realtime_patching
    """.split()
)
# Keys that this place of the file holds and transformers itself overwrites or never reads.
_UNREAD = {
    "blt": ("rope_parameters", "rope_scaling", "rope_theta"),
    "encoder_config": ("sliding_window", "tie_word_embeddings"),
    "decoder_config": ("sliding_window", "tie_word_embeddings"),
    "global_config": ("encoder_cross_output_size", "tie_word_embeddings"),
    "patcher_config": ("tie_word_embeddings",),
}


def read(settings, where="config.json", byte_vocab=True):
    """(Blt or Lm, patcher Lm or None, Patching or None, context in positions) of a parsed
    config.json.

    `byte_vocab`: whether a Llama of 260 entries is a byte LM (it has no tokenizer of its own).
    Raises ConfigError naming the key that cannot be honoured.
    """
    kind = settings.get("model_type")
    if kind == "blt":
        return _read_blt(settings, where)
    if kind != "llama":
        raise ConfigError(
            f"{where}: model_type = {kind!r}: must be one of {', '.join(MODEL_TYPES)}"
        )
    c = _values(settings, kind, where)
    byte = byte_vocab and c["vocab_size"] == BYTE_VOCAB
    stack = _stack(c, kind, where, window=0)
    model = Lm(
        stack,
        vocab=c["vocab_size"],
        unit="byte" if byte else "token",
        tied=bool(c["tie_word_embeddings"]),
    )
    return model, None, None, c["max_position_embeddings"]


def _values(settings, part, where):
    """The honoured keys of one object of the file, defaults filled in; refuses what is unknown or
    would differ.
    """
    known = _DEFAULTS[part]
    if not isinstance(settings, dict):
        raise ConfigError(f"{where} = {settings!r}: must be an object")
    found = dict(known)
    for key, value in settings.items():
        if key in known:
            found[key] = (
                known[key] if value is None and key in ("rms_norm_eps", "vocab_size") else value
            )
        elif key == "norm_eps" and value == settings.get("rms_norm_eps", value):
            pass  # an older spelling, which transformers does not read
        elif key in _UNREAD.get(part, ()) or key in _IGNORED:
            pass
        elif key in _ONLY:
            if value not in _ONLY[key]:
                allowed = " or ".join(map(repr, _ONLY[key]))
                raise ConfigError(f"{where}: {key} = {value!r}: only {allowed} is supported")
        else:
            raise ConfigError(
                f"{where}: {key} = {value!r}: unknown key, it may change the model; remove it if "
                "it does not"
            )
    for key, value in found.items():
        kinds = _TYPES.get(key)
        wrong = (
            value is not None
            and kinds
            and (not isinstance(value, kinds) or isinstance(value, bool) and bool not in kinds)
        )
        if wrong or (value is None and key in _NEEDED):
            raise ConfigError(
                f"{where}: {key} = {value!r}: must be {' or '.join(k.__name__ for k in kinds)}"
            )
    return found


_NEEDED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "vocab_size",
)
_TYPES = {
    key: (int,)
    for key in (*_NEEDED, "num_key_value_heads", "intermediate_size", "head_dim", "cross_attn_k")
}
_TYPES |= {
    key: (int,)
    for key in ("hidden_size_global", "sliding_window", "max_patch_length", "patch_size")
}
_TYPES |= {key: (int,) for key in ("local_attention_window_len", "encoder_hash_byte_group_vocab")}
_TYPES |= {
    "encoder_hash_byte_group_nb_functions": (int,),
    "encoder_hash_byte_group_size": (list, tuple),
}
_TYPES |= {key: (int, float) for key in ("rms_norm_eps", "rope_theta", "patching_threshold")}
_TYPES |= {key: (dict,) for key in ("rope_parameters", "rope_scaling")}


def _rope(c, part, where):
    """(theta, scaling) as transformers resolves them: rope_scaling over rope_parameters, then
    rope_theta.
    """
    rope = c["rope_scaling"] or c["rope_parameters"] or {}
    key = "rope_scaling" if c["rope_scaling"] else "rope_parameters"
    theta = rope.get("rope_theta", c["rope_theta"])
    theta = _THETA.get(part, 500_000.0) if theta is None else theta
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


def _stack(c, part, where, window):
    heads, width = c["num_attention_heads"], c["hidden_size"]
    theta, scaling = _rope(c, part, where)
    try:
        stack = Stack(
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
    if c["head_dim"] not in (None, stack.head_width):
        raise ConfigError(
            f"{where}: head_dim = {c['head_dim']}: must be hidden_size / heads = {stack.head_width}"
        )
    return stack


def _read_blt(settings, where):
    c = _values(settings, "blt", where)
    parts = {
        name: _values(c[name] or {}, name, f"{where}: {name}")
        for name in _DEFAULTS
        if name.endswith("_config")
    }
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
    stack = lambda name, window: _stack(parts[name], name, f"{where}: {name}", window)
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
    patcher, rule = (
        None,
        "byte",
    )  # whatever is not entropy patching is one byte per patch in transformers
    if c["patch_in_forward"]:
        patch = parts["patcher_config"]
        equal("patcher_config.vocab_size", patch["vocab_size"], c["vocab_size"], "vocab_size")
        patcher = Lm(stack("patcher_config", patch["sliding_window"] or 0))
        rule = "entropy" if c["patching_mode"] == "entropy" else "byte"
    if rule == "entropy" and (c["patch_size"] is None or c["patching_threshold"] is None):
        key = "patch_size" if c["patch_size"] is None else "patching_threshold"
        raise ConfigError(
            f"{where}: {key} = None: entropy patching needs a number (any patch_size; nats)"
        )
    threshold = float(c["patching_threshold"] or 0.0)
    patching = Patching(rule, threshold=threshold, max_length=c["max_patch_length"] or 0)
    return model, patcher, patching, encoder["max_position_embeddings"]


def load_settings(path):
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
