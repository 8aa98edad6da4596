"""Every key of config.json is honoured or refused by name; weights that do not fit are one line."""

import copy
import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from blt_jax.config import ConfigError, Stack
from blt_jax.families import network
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.interop import huggingface
from blt_jax.patching import Patching

LOCAL, LATENT = Stack(1, 16, 2, ffn=24, window=8), Stack(1, 24, 2, ffn=40)
BLT = Blt(LOCAL, LATENT, LOCAL, hash_sizes=(3,), hash_rows=50)
LLAMA = Lm(LATENT, vocab=70, unit="token")
ENTROPY = Lm(LOCAL)
SCALED = {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}


def settings(model=BLT, **changes):
    """config.json of a model; "part.key" changes an inner key."""
    blt = isinstance(model, Blt)
    made = model.huggingface().write(
        model, ENTROPY if blt else None, Patching() if blt else None, 4096
    )
    made = json.loads(json.dumps(made))
    for path, value in changes.items():
        *parts, key = path.split("__")
        at = made
        for part in parts:
            at = at[part]
        at[key] = value
    return made


@pytest.mark.parametrize(
    "path, value, line",
    [
        ("encoder_config__dropout", 0.1, "encoder_config: dropout = 0.1: only 0 or None"),
        ("decoder_config__hidden_act", "gelu", "decoder_config: hidden_act = 'gelu': only 'silu'"),
        (
            "global_config__head_dim",
            16,
            "global_config: head_dim = 16: must be hidden_size / heads = 12",
        ),
        (
            "global_config__rope_parameters__rope_type",
            "yarn",
            "rope_parameters.rope_type = 'yarn': must be one of",
        ),
        (
            "decoder_config__hidden_size",
            32,
            "decoder_config.hidden_size = 32: must equal encoder_config.hidden_size",
        ),
        (
            "decoder_config__num_attention_heads",
            4,
            "decoder_config.num_attention_heads = 4: must equal",
        ),
        (
            "decoder_config__num_key_value_heads",
            1,
            "decoder_config.num_key_value_heads = 1: must equal",
        ),
        (
            "encoder_config__cross_attn_k",
            3,
            "encoder_config.cross_attn_k = 3: must equal cross_attn_k = 2",
        ),
        (
            "decoder_config__hidden_size_global",
            32,
            "decoder_config.hidden_size_global = 32: must equal global_config",
        ),
        (
            "patcher_config__vocab_size",
            256,
            "patcher_config.vocab_size = 256: must equal vocab_size = 260",
        ),
        (
            "patcher_config__rope_parameters__beta_fast",
            2,
            "patcher_config: rope_parameters.beta_fast = 2",
        ),
        ("monotonicity", True, "monotonicity = True: only False or None"),
        ("patching_threshold", None, "patching_threshold = None: entropy patching needs"),
        (
            "encoder_config__window_shape",
            "round",
            "encoder_config: window_shape = 'round': unknown key",
        ),
        ("global_config__hidden_size", "24", "global_config: hidden_size = '24': must be int"),
        ("global_config__num_attention_heads", 5, "global_config: heads = 5: must divide width 24"),
        ("quantization_config", {"bits": 4}, "quantization_config = .*: only None"),
        ("model_type", "bert", "model_type = 'bert': must be one of blt, llama"),
    ],
)
def test_blt_keys_that_are_refused(path, value, line):
    with pytest.raises(ConfigError, match=line) as error:
        huggingface.read_settings(settings(**{path: value}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "key, value",
    [
        ("attention_bias", True),
        ("mlp_bias", True),
        ("pretraining_tp", 2),
        ("attention_dropout", 0.1),
    ],
)
def test_llama_keys_that_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key} = {value}: only"):
        huggingface.read_settings(settings(LLAMA, **{key: value}))


def test_older_rotary_keys():
    old = settings(LLAMA, rope_scaling=SCALED, rope_theta=5e5, torch_dtype="bfloat16")
    del old["rope_parameters"]
    model = huggingface.read_settings(old)[0]
    assert model.stack.rope_theta == 5e5 and model.stack.rope_scaling == (8.0, 1.0, 4.0, 4096.0)
    del old["rope_scaling"], old["rope_theta"], old["rms_norm_eps"]
    assert (
        huggingface.read_settings(old)[0].stack.rope_theta,
        huggingface.read_settings(old)[0].stack.norm_eps,
    ) == (
        10_000.0,
        1e-6,
    )


def test_patching_modes_and_windows():
    read = lambda **changes: huggingface.read_settings(settings(**changes))
    model, patcher, patching, context = read()
    assert (model, patcher, context) == (BLT, ENTROPY, 4096) and patching == Patching()
    assert read(patching_mode="space")[2].rule == "byte"  # so does transformers
    model, patcher, patching, _ = read(
        patch_in_forward=False, local_attention_window_len=None, max_patch_length=5
    )
    assert (patcher, patching.rule, patching.max_length) == (None, "byte", 5)
    assert model.encoder.window == model.decoder.window == 4096
    assert read(patcher_config__sliding_window=None)[1].stack.window == 0


def test_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    for kind, cls in (("blt", transformers.BltConfig), ("llama", transformers.LlamaConfig)):
        whole = json.loads(cls().to_json_string(use_diff=False))
        short = json.loads(cls().to_json_string())
        assert (
            huggingface.read_settings(whole)
            == huggingface.read_settings(short)
            == huggingface.read_settings({"model_type": kind})
        )


@pytest.mark.parametrize(
    "change, line",
    [
        ({"cross_residual": "single"}, "cross_residual = 'single'"),
        ({"pool_from": "embeddings"}, "pool_from = 'embeddings'"),
        ({"hash_norm": True}, "hash_norm = True"),
        ({"hash_short": "omit"}, "hash_short = 'omit'"),
        ({"hash_order": "newest"}, "hash_order = 'newest'"),
        ({"hash_scope": "document"}, "hash_scope = 'document'"),
        ({"hash_sizes": ()}, r"hash_sizes = \(\)"),
        ({"encoder_cross": "none"}, "encoder_cross = 'none'"),
        ({"decoder_cross": "none"}, "decoder_cross = 'none'"),
        ({"cross_heads": 4, "cross_kv_heads": 4}, "encoder.heads = 2"),
        ({"latent": dataclasses.replace(LATENT, window=9)}, "latent.window = 9"),
        ({"decoder": dataclasses.replace(LOCAL, window=9)}, "decoder.window = 9"),
    ],
)
def test_models_that_cannot_be_saved(change, line):
    with pytest.raises(ConfigError, match=line):
        BLT.huggingface().write(dataclasses.replace(BLT, **change))


def test_patching_that_cannot_be_saved():
    for patcher, patching, line in (
        (None, Patching("space"), "patching.rule = 'space'"),
        (None, Patching("entropy"), "'entropy' without a patcher"),
        (ENTROPY, Patching("entropy", newline_reset=True), "newline_reset = True"),
    ):
        with pytest.raises(ConfigError, match=line):
            BLT.huggingface().write(BLT, patcher, patching)
    with pytest.raises(ConfigError, match="stack.window = 8"):
        ENTROPY.huggingface().write(ENTROPY)


def zeros(config):
    return jax.tree.map(lambda s: np.zeros(s.shape, np.float32), network.shapes(config))


def test_weights_that_do_not_fit(tmp_path):
    huggingface.save(tmp_path, LLAMA, zeros(LLAMA))
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    name = "model.layers.0.self_attn.q_proj.weight"

    def refused(weights, line):
        save_file(weights, path)
        with pytest.raises(ConfigError, match=line) as error:
            huggingface.load(tmp_path)
        assert "\n" not in str(error.value)

    refused({k: v for k, v in whole.items() if k != name}, f"{name} is missing")
    refused(
        whole | {"model.more.weight": np.zeros(2, np.float32)}, "model.more.weight has no place"
    )
    refused(
        whole | {name: np.zeros((24, 20), np.float32)},
        rf"{name} has shape \(24, 20\), .* wants \(24, 24\)",
    )
    refused(whole | {name: np.zeros((24, 24), np.int8)}, f"{name} is I8: must be one of")
    save_file(
        whole | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(6, np.float32)}, path
    )
    assert huggingface.load(tmp_path).model == LLAMA  # a buffer that older files hold
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        huggingface.load(tmp_path)
    path.unlink()
    with pytest.raises(
        ConfigError, match="holds neither model.safetensors nor model.safetensors.index.json"
    ):
        huggingface.load(tmp_path)


def test_tied_weights_may_stand_under_either_name(tmp_path):
    tied = dataclasses.replace(LLAMA, tied=True)
    huggingface.save(tmp_path, tied, zeros(tied))
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    for absent in ("lm_head.weight", "model.embed_tokens.weight"):
        save_file({k: v for k, v in whole.items() if k != absent}, path)
        assert huggingface.load(tmp_path).model == tied
    save_file(whole | {"lm_head.weight": whole["lm_head.weight"] + 1}, path)
    with pytest.raises(ConfigError, match="lm_head.weight and model.embed_tokens.weight differ"):
        huggingface.load(tmp_path)


def test_shards(tmp_path):
    huggingface.save(tmp_path, LLAMA, zeros(LLAMA), max_shard_bytes=5000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert (
        len(set(index["weight_map"].values())) > 2 and not (tmp_path / "model.safetensors").exists()
    )
    lost = copy.deepcopy(index)
    lost["weight_map"]["model.norm.weight"] = sorted(set(index["weight_map"].values()))[0]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(lost))
    with pytest.raises(ConfigError, match="tensor model.norm.weight is missing, though"):
        huggingface.load(tmp_path)
    huggingface.save(tmp_path, LLAMA, zeros(LLAMA))  # over it, whole
    assert (
        not (tmp_path / "model.safetensors.index.json").exists()
        and huggingface.load(tmp_path).model == LLAMA
    )
