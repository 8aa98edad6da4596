"""Model configs of the published shapes (BLT paper, Table 10; blt.md, section 9)."""

import difflib

from blt_jax.config import BYTE_VOCAB, Blt, ConfigError, Lm, Stack

# name: local (heads, width), latent (layers, heads, width), decoder layers, slots
_SHAPES = {
    "400m": ((12, 768), (24, 10, 1280), 7, 2),
    "1b": ((16, 1024), (25, 16, 2048), 9, 2),
    "2b": ((16, 1024), (26, 20, 2560), 9, 3),
    "4b": ((16, 1024), (36, 24, 3072), 9, 3),
    "8b": ((20, 1280), (32, 32, 4096), 6, 4),
}
_TOKEN_VOCAB = {"llama3": 128_000, "llama2": 32_000}
WINDOW = 512


def _blt(size, hash_rows):
    """Cross-attention has the local models' heads (the table's 10 for 400M do not divide its width
    of 768).
    """
    (heads, width), (layers, latent_heads, latent_width), decoder_layers, slots = _SHAPES[size]
    return Blt(
        encoder=Stack(1, width, heads, window=WINDOW),
        latent=Stack(layers, latent_width, latent_heads),
        decoder=Stack(decoder_layers, width, heads, window=WINDOW),
        slots=slots,
        hash_rows=hash_rows,
    )


def _token(size, vocab):
    layers, heads, width = _SHAPES[size][1]
    return Lm(Stack(layers, width, heads), vocab=vocab, unit="token")


_PRESETS = {
    **{f"blt-{size}": lambda size=size: _blt(size, 500_000) for size in _SHAPES},
    **{
        f"{family}-{size}": lambda size=size, vocab=vocab: _token(size, vocab)
        for family, vocab in _TOKEN_VOCAB.items()
        for size in _SHAPES
    },
    "released-1b": lambda: _blt("1b", 500_002),
    "entropy-100m": lambda: Lm(
        Stack(14, 768, 12, window=WINDOW, rope_theta=10_000.0), vocab=BYTE_VOCAB
    ),
}


def preset(name):
    """The config of a published shape: blt-400m ... blt-8b, llama3-*, llama2-* with the same latent
    model as a token LM, released-1b, entropy-100m. Raises ConfigError with the nearest name.
    """
    if name not in _PRESETS:
        near = difflib.get_close_matches(name, _PRESETS, 1)
        raise ConfigError(
            f"preset {name!r}: "
            + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_PRESETS)}")
        )
    return _PRESETS[name]()
