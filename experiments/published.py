"""What the studies at published scale share: models as configs, the corpus, the entropy model,
optimiser and mesh.

The corpus is yours: `--config.data.input=GLOB` (and `validation_input`). Optimiser: AdamW (0.9,
0.95), weight decay 0.1, clip 1, peak 4e-4 at every size, 2,000 steps of warm-up, cosine to 0 (BLT
paper, section 4.8). Parameters and optimiser state are split over all devices (fsdp), layers are
recomputed in the backward pass, and each device takes `train.device_rows` rows at a time, so that a
run of any size fits few devices and any number of them gives the same numbers but for rounding.
"""

import dataclasses

from ml_collections import ConfigDict

from blt_jax.config import Data, Mesh, Optimizer, Tokenizer, Train
from blt_jax.families import preset
from blt_jax.flops import per_byte, training
from blt_jax.record import to_dict
from blt_jax.study.config import EntropyModel, Family, Size, Study
from experiments.base import of, tuples

RATE = 4e-4
CONTEXT = 8192  # bytes per row of the paper's scaling studies (section 4.3)
# of `blt_jax.families.preset`; the names are those of the latent models
SIZES = ("400m", "1b", "2b", "4b", "8b")
BYTES_PER_TOKEN = {32_000: 3.7, 128_000: 4.4}  # Llama 2, Llama 3 (paper, section 4.1)
NO_CROSS = dict(encoder_cross="none", decoder_cross="none")
NO_HASH = dict(hash_sizes=(), hash_functions=0)


def model(config, **changes):
    """A model dataclass, some fields changed, as a ConfigDict."""
    return ConfigDict(tuples(to_dict(dataclasses.replace(config, **changes))))


def budget(config, unit, text_bytes, *, context=CONTEXT, convention="paper"):
    """Training FLOPs of a model dataclass on so many bytes, at `unit` bytes per patch or token."""
    forward = per_byte(config, patch_size=unit, context_bytes=context, convention=convention).total
    return training(forward) * text_bytes


def key(number):
    """A number as part of a config key, which may hold no dot: 4p5."""
    return f"{number:g}".replace(".", "p")


def size(config, budgets=()):
    return of(Size, model=config, learning_rate=RATE, budgets=tuple(budgets))


def token_family(label, vocab, sizes):
    """A family of token models with a tokenizer of its own, trained on the study's text where no
    path is given.
    """
    return of(Family, label=label, sizes=sizes, tokenizer=of(Tokenizer, vocab=vocab))


def data(row_bytes):
    """The corpus, in rows of so many bytes."""
    return of(
        Data,
        input="corpus/*.train.jsonl.zst",
        validation_input="corpus/*.validation.jsonl.zst",
        row_bytes=row_bytes,
    )


def study(name, families, budgets=(), entropy=None, **more):
    """A Study of 4M-byte batches in rows of `CONTEXT`, entropies by the 100M model.

    It is trained as the released one, 524,288 bytes a batch: its 64 rows go to at most 64 devices.
    """
    entropy = size(model(entropy or preset("entropy-100m")))
    fields = dict(
        name=name,
        families=families,
        budgets=budgets,
        entropy_model=of(EntropyModel, size=entropy, bytes=52_400_000_000, rows=64),
        data=data(CONTEXT),
        optimizer=of(Optimizer),
        train=of(Train, rows=512, remat="full", device_rows=1),
        mesh=of(Mesh, data=1, fsdp=-1),
        convention="paper",
        checkpoints_per_run=10,
    )
    return of(Study, **fields | more)
