"""BLT against BPE tokens and SpaceByte at equal training FLOPs, on a laptop's CPU.

    python -m launch.sweep --config=experiments/quickstart.py --workdir=runs/quickstart

Three families, three sizes, three budgets: 27 runs on the text of Python's own standard library,
plus the tokenizer and the entropy model that they need. One seed, tiny models: it shows the method
and the report, and settles nothing about BLT. The best size lies between the sizes at every budget,
but for BPE and SpaceByte at the smallest one. 9 to 16 minutes on two cores.

Learning rates come from the same small search for each family (experiments/quickstart_rates.py: the
medium model, 2.5e11 FLOPs, one seed; validation BPB at 4e-3, 8e-3, 1.6e-2, 3.2e-2):

    BLT        2.607  2.333  2.226  2.178   -> 1.6e-2, see below
    BPE        2.552  2.480  2.513  2.609   -> 8e-3
    SpaceByte  3.062  2.957  2.933  3.287   -> 1.6e-2

At 3.2e-2, the edge, BLT's hash tables learn fastest, but by the largest budget the medium model's
latent part had fallen silent (no threshold changed its BPB any more); there 1.6e-2 is better too,
1.983 against 1.989.

`--config.data.input=GLOB` runs the same study on other text; experiments/text.py
is such a study, over several sources.
"""

from blt_jax.config import Data, Optimizer, Stack, Tokenizer, Train
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching
from blt_jax.study.config import EntropyModel, Family, Size, Study
from experiments.base import of

VOCAB = 1024
WINDOW = 64
HASH = dict(hash_sizes=(3, 4, 5, 6, 7, 8), hash_rows=2048, hash_scope="document")


def stack(layers, width, heads, **more):
    return of(Stack, layers=layers, width=width, heads=heads, ffn_multiple=8, **more)


def blt(local_width, decoder_layers=1, **more):
    """Byte states `local_width` wide, a latent model of one layer twice as wide."""
    heads = max(1, local_width // 16)
    return of(
        Blt,
        encoder=stack(1, local_width, heads, window=WINDOW),
        latent=stack(1, 2 * local_width, heads),
        decoder=stack(decoder_layers, local_width, heads, window=WINDOW),
        **more,
    )


def spacebyte(local_width):
    more = dict(encoder_cross="none", decoder_cross="none", hash_sizes=(), hash_functions=0)
    return blt(local_width, decoder_layers=2, **more)


def tokens(width):
    return of(Lm, stack=stack(2, width, width // 16), vocab=VOCAB, unit="token")


MODELS = {
    "blt": dict(tiny=blt(8, **HASH), small=blt(16, **HASH), medium=blt(32, **HASH)),
    "bpe": dict(tiny=tokens(16), small=tokens(32), medium=tokens(64)),
    "spacebyte": dict(tiny=spacebyte(8), small=spacebyte(16), medium=spacebyte(32)),
}
RATES = {"blt": 1.6e-2, "bpe": 8e-3, "spacebyte": 1.6e-2}
LABELS = {"blt": "BLT, entropy patches", "bpe": "BPE tokens", "spacebyte": "SpaceByte"}
PATCHINGS = {
    "blt": of(Patching, rule="entropy", target=4.5),
    "bpe": None,
    "spacebyte": of(Patching, rule="space"),
}


def family(name):
    sizes = {
        size: of(Size, model=model, learning_rate=RATES[name])
        for size, model in MODELS[name].items()
    }
    return of(Family, label=LABELS[name], patching=PATCHINGS[name], sizes=sizes)


def get_config(_=""):
    entropy = of(Lm, stack=stack(2, 32, 2, window=32, rope_theta=10_000.0))
    return of(
        Study,
        name="quickstart",
        families={name: family(name) for name in MODELS},
        budgets=(5e10, 1.6e11, 5e11),
        entropy_model=of(
            EntropyModel,
            size=of(Size, model=entropy, learning_rate=1.6e-2),
            bytes=1_000_000,
            rows=2,
        ),
        data=of(Data, max_bytes=4_200_000, validation_max_bytes=100_000, row_bytes=512),
        tokenizer=of(Tokenizer, vocab=VOCAB),
        optimizer=of(Optimizer),
        train=of(Train, rows=2, log_every=20),
    )
