"""BLT against BPE tokens and SpaceByte at equal training FLOPs, on a laptop's CPU.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart

Three families, three sizes, three budgets: 27 runs on the text of Python's own standard library, plus the
tokenizer and the entropy model that they need. One seed, tiny models: it shows the method and the report, and
settles nothing about BLT. `--config.data.input=GLOB` runs the same study on other text; experiments/text.py
is such a study, over several sources.
"""

from blt_jax.config import (
    Blt,
    Data,
    EntropyModel,
    Family,
    Lm,
    Optimizer,
    Patching,
    Size,
    Stack,
    Study,
    Tokenizer,
    Train,
)
from experiments.base import of

VOCAB = 1024
WINDOW = 64
HASH = dict(hash_sizes=(3, 4, 5, 6, 7, 8), hash_rows=2048, hash_scope="document")


def stack(layers, width, heads, **more):
    return of(Stack, layers=layers, width=width, heads=heads, ffn_multiple=8, **more)


def blt(local_width, latent_layers, decoder_layers=1, **more):
    """Byte states `local_width` wide, a latent model twice as wide."""
    heads = local_width // 16
    return of(
        Blt,
        encoder=stack(1, local_width, heads, window=WINDOW),
        latent=stack(latent_layers, 2 * local_width, heads),
        decoder=stack(decoder_layers, local_width, heads, window=WINDOW),
        **more,
    )


def spacebyte(local_width, latent_layers):
    more = dict(encoder_cross="none", decoder_cross="none", hash_sizes=(), hash_functions=0)
    return blt(local_width, latent_layers, decoder_layers=2, **more)


def tokens(width, layers):
    return of(Lm, stack=stack(layers, width, width // 32), vocab=VOCAB, unit="token")


def sizes(rate, **models):
    return {name: of(Size, model=model, learning_rate=rate) for name, model in models.items()}


def get_config(_=""):
    families = {
        "blt": of(
            Family,
            label="BLT, entropy patches",
            patching=of(Patching, rule="entropy", target=4.5),
            sizes=sizes(4e-3, small=blt(32, 1, **HASH), medium=blt(48, 2, **HASH), large=blt(64, 3, **HASH)),
        ),
        "bpe": of(
            Family,
            label="BPE tokens",
            sizes=sizes(4e-3, small=tokens(64, 2), medium=tokens(96, 3), large=tokens(128, 4)),
        ),
        "spacebyte": of(
            Family,
            label="SpaceByte",
            patching=of(Patching, rule="space"),
            sizes=sizes(4e-3, small=spacebyte(32, 1), medium=spacebyte(48, 2), large=spacebyte(64, 3)),
        ),
    }
    entropy = of(Lm, stack=stack(2, 32, 2, window=32, rope_theta=10_000.0))
    return of(
        Study,
        name="quickstart",
        families=families,
        budgets=(5e10, 1.6e11, 5e11),
        entropy_model=of(EntropyModel, size=of(Size, model=entropy, learning_rate=4e-3), bytes=600_000, rows=4),
        data=of(Data, max_bytes=2_500_000, validation_max_bytes=100_000, row_bytes=512),
        tokenizer=of(Tokenizer, vocab=VOCAB),
        optimizer=of(Optimizer),
        train=of(Train, rows=2, log_every=20),
    )
