"""One study folder of tiny random models for all tests of evaluations: entropy patches, tokens,
bytes.
"""

import pytest

import blt_jax
from blt_jax.config import Stack
from blt_jax.data import bpe
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching
from tests.interop.test_facade import BLT, LOCAL, TEXT, save_run


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("evaluated")
    save_run(made / "entropy_model", Lm(LOCAL))
    save_run(made / "runs" / "patches", BLT, Patching("entropy", threshold=4.9))
    bpe.train([TEXT, b"it is what it is, and that is that. " * 9], 300, made / "tokenizer.json")
    tokens = Lm(Stack(1, 16, 2, ffn=24), vocab=bpe.Bpe(made / "tokenizer.json").vocab, unit="token")
    save_run(made / "runs" / "tokens", tokens, tokenizer="../../tokenizer.json")
    return made


@pytest.fixture(scope="session")
def models(folder):
    places = {"patches": "runs/patches", "tokens": "runs/tokens", "bytes": "entropy_model"}
    return {name: blt_jax.load(folder / place) for name, place in places.items()}
