"""Parity fixtures (Hugging Face layout) through the product's own mapping. Tests only."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from blt_jax.families import hf_tensors, network
from blt_jax.interop import huggingface
from blt_jax.patching.row_layout import rows_by_lengths

SHARED = Path(__file__).resolve().parents[3] / "shared"
FIXTURES = SHARED / "fixtures"
BLT_NAMES = (
    "blt_entropy",
    "blt_entropy_first_layer",
    "blt_1b_structure",
    "blt_max_patch",
    "blt_explicit_lengths",
    "blt_encoder_all_layers",
    "blt_documents",
)


def run(function, *arguments):
    """`function(*arguments)`, jitted."""
    return jax.jit(function)(*arguments)


def _folder(name):
    folder = FIXTURES / name
    if not folder.exists():
        pytest.skip(f"parity fixtures are not beside this checkout ({name})")
    return folder


def load(name):
    """(config.json, weights, io arrays, meta.json) of a fixture; skips where the fixtures are
    absent.
    """
    safetensors = pytest.importorskip("safetensors.numpy")
    folder = _folder(name)
    read = lambda file: json.loads((folder / file).read_text())
    arrays = [
        safetensors.load_file(folder / file) for file in ("weights.safetensors", "io.safetensors")
    ]
    return read("config.json"), *arrays, read("meta.json")


def directory(name, folder):
    """A fixture as a Hugging Face directory, made in `folder`."""
    for ours, theirs in (
        ("config.json", "config.json"),
        ("model.safetensors", "weights.safetensors"),
    ):
        (folder / ours).symlink_to(_folder(name) / theirs)
    return folder


def configs(c):
    """(Blt, Lm of the patcher) of a fixture's config.json."""
    return huggingface.read_settings(c)[:2]


def params(weights, config, patcher=False):
    table = config.huggingface().tensors(config, patcher)
    return hf_tensors.to_params(weights, table, network.shapes(config))


def cases(io):
    """Names of the cases with stored logits."""
    return sorted({key.rsplit(".", 1)[0] for key in io if key.endswith(".logits")})


def batch(ids_BxN, lengths_BxP):
    return rows_by_lengths(ids_BxN, lengths_BxP)


def padded_together(batches, length=96):
    """All rows of all cases as one batch: what is padding must not matter."""
    fill = {"patch_BxL": length, "read_BxL": length - 1}
    pad = lambda key, x: np.pad(
        x, ((0, 0), (0, length - x.shape[1])), constant_values=fill.get(key, 0)
    )
    return {key: np.concatenate([pad(key, batch[key]) for batch in batches]) for key in batches[0]}
