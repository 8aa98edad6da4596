"""Reads a parity fixture (Hugging Face layout) into our config, parameters and batches. Tests only."""

import json
from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import Blt, Lm, Stack

SHARED = Path(__file__).resolve().parents[3] / "shared"
FIXTURES = SHARED / "fixtures"


def load(name):
    """(config.json, weights, io arrays, meta.json) of a fixture; skips where the fixtures are absent."""
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = FIXTURES / name
    if not folder.exists():
        pytest.skip(f"parity fixtures are not beside this checkout ({name})")
    read = lambda file: json.loads((folder / file).read_text())  # noqa: E731
    arrays = [safetensors.load_file(folder / file) for file in ("weights.safetensors", "io.safetensors")]
    return read("config.json"), *arrays, read("meta.json")


def stack(c, window):
    return Stack(
        c["num_hidden_layers"],
        c["hidden_size"],
        c["num_attention_heads"],
        kv_heads=c["num_key_value_heads"],
        ffn=c["intermediate_size"],
        window=window,
        rope_theta=c["rope_parameters"]["rope_theta"],
        norm_eps=c["rms_norm_eps"],
    )


def configs(c):
    """(Blt, Lm of the patcher) of a fixture's config.json."""
    encoder, decoder = c["encoder_config"], c["decoder_config"]
    blt = Blt(
        encoder=stack(encoder, encoder["sliding_window"]),
        latent=stack(c["global_config"], 0),
        decoder=stack(decoder, encoder["sliding_window"]),
        slots=c["cross_attn_k"],
        encoder_cross="all" if encoder["cross_attn_all_layers"] else "last",
        decoder_cross="all" if decoder["cross_attn_all_layers"] else "first",
        hash_sizes=tuple(c["encoder_hash_byte_group_size"]),
        hash_functions=c["encoder_hash_byte_group_nb_functions"],
        hash_rows=c["encoder_hash_byte_group_vocab"],
    )
    patcher = c["patcher_config"]
    return blt, Lm(stack(patcher, patcher["sliding_window"])) if patcher else None


def _block(w, prefix, s):
    linear = lambda name, *shape: w[f"{prefix}.{name}.weight"].T.reshape(shape)  # noqa: E731
    heads = lambda name, count: linear(f"self_attn.{name}_proj", s.width, count, s.head_width)  # noqa: E731
    return {
        "attention_norm": {"scale": w[f"{prefix}.input_layernorm.weight"]},
        "ffn_norm": {"scale": w[f"{prefix}.post_attention_layernorm.weight"]},
        "q": {"kernel": heads("q", s.heads)},
        "k": {"kernel": heads("k", s.kv_heads)},
        "v": {"kernel": heads("v", s.kv_heads)},
        "o": {"kernel": linear("self_attn.o_proj", s.heads, s.head_width, s.width)},
        "gate": {"kernel": linear("mlp.gate_proj", s.width, s.ffn)},
        "up": {"kernel": linear("mlp.up_proj", s.width, s.ffn)},
        "down": {"kernel": linear("mlp.down_proj", s.ffn, s.width)},
    }


def _cross(w, prefix, width, heads):
    split = lambda name: w[f"{prefix}.{name}_proj.weight"].T.reshape(width, heads, -1)  # noqa: E731
    return {
        "query_norm": {"scale": w[f"{prefix}.q_norm.weight"]},
        "context_norm": {"scale": w[f"{prefix}.k_norm.weight"]},
        **{name: {"kernel": split(name)} for name in "qkv"},
        "o": {"kernel": w[f"{prefix}.o_proj.weight"].T.reshape(heads, -1, width)},
    }


def _pile(trees):
    import jax

    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _layers(w, prefix, s):
    return {"layers": _pile([_block(w, f"{prefix}.layers.{i}", s) for i in range(s.layers)])}


def params(w, c):
    """Our parameter tree of a fixture's BLT."""
    e, d, E = "model.local_encoder", "model.local_decoder", c.encoder.width
    cross = lambda prefix, i: _cross(w, f"{prefix}.cross_attn_layers.{i}", E, c.cross_heads)  # noqa: E731
    encoder = {
        "embedding": w[f"{e}.embed_tokens.weight"],
        "hash": {"tables": w["model.encoder_hash_tok_embedding.weight"].reshape(c.hash_tables, c.hash_rows, E)},
        "query": {"kernel": w[f"{e}.patch_embedding_projection.weight"].T},
    }
    if c.encoder_cross == "all":
        for i in range(c.encoder.layers):
            encoder[f"layer_{i}"] = _block(w, f"{e}.layers.{i}", c.encoder)
            encoder[f"cross_{i}"] = cross(e, i)
    else:
        encoder |= {"stack": _layers(w, e, c.encoder), "cross": cross(e, 0)}
    decoder = {
        "from_latent": {"kernel": w[f"{d}.patch_embedding_projection.weight"].T},
        "norm": {"scale": w[f"{d}.norm.weight"]},
        "head": {"kernel": w["lm_head.weight"].T},
    }
    if c.decoder_cross == "all":
        blocks = [_block(w, f"{d}.layers.{i}", c.decoder) for i in range(c.decoder.layers)]
        decoder["layers"] = _pile([{"cross": cross(d, i), "block": b} for i, b in enumerate(blocks)])
    else:
        decoder |= {"cross": cross(d, 0), "stack": _layers(w, d, c.decoder)}
    tree = {"encoder": encoder, "latent": _layers(w, "model.global_transformer", c.latent), "decoder": decoder}
    if c.slots_width != c.latent.width:
        tree["to_latent"] = {"kernel": w["model.global_transformer.token_embedding_projection.weight"].T}
    return tree


def patcher_params(w, c):
    p = "model.patcher"
    return {
        "embedding": w[f"{p}.embed_tokens.weight"],
        "stack": _layers(w, p, c.stack),
        "norm": {"scale": w[f"{p}.norm.weight"]},
        "head": {"kernel": w[f"{p}.lm_head.weight"].T},
    }


def batch(ids_BxN, lengths_BxP):
    """Model inputs for rows whose patch lengths count the next byte; an EOS closes its document."""
    B, N = ids_BxN.shape
    closed = np.cumsum(ids_BxN == 2, axis=1)
    patch = np.stack([np.repeat(np.arange(lengths_BxP.shape[1]), row)[: N + 1] for row in lengths_BxP])
    holds_eos = np.zeros(lengths_BxP.shape, bool)
    for b in range(B):
        holds_eos[b, patch[b, :N][ids_BxN[b] == 2]] = True
    before = np.cumsum(holds_eos, axis=1) - holds_eos
    return {
        "ids_BxL": ids_BxN.astype(np.int32),
        "segment_BxL": (1 + closed - (ids_BxN == 2)).astype(np.int32),
        "patch_BxL": patch[:, :N].astype(np.int32),
        "read_BxL": (patch[:, 1:] - 1).astype(np.int32),
        "patch_segment_BxP": np.where(lengths_BxP > 0, 1 + before, 0).astype(np.int32),
    }
