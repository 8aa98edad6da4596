"""What BLT's parts are worth: BLT paper, Tables 7, 8 and 9, as `:cross_attention`, `:hash` and
`:local_layers`.

    python -m launch.plan  --config=experiments/ablations.py:hash --hardware=h100 --devices=64
    python -m launch.sweep --config=experiments/ablations.py:hash --workdir=runs/ablation_hash \\
        --config.data.input='corpus/*.jsonl.zst'

Questions: where does cross-attention help; how many hash n-grams, of which length, in how large a
table; how are ten local layers best shared between encoder and decoder? All at 1B, on 100B bytes,
in entropy patches of 4.5 bytes (the paper does not say; BLT's default), rows of 8 KiB. Every
variant reads the same bytes, so that budgets differ where its FLOPs do. Published BPB on the
training distribution stands beside each variant below; second-hand where the tables could not be
read.

Cost, by `launch.plan --hardware=h100 --mfu=0.4` (exact FLOPs): cross_attention 6 runs and 1,160
device-hours, hash 10 and 2,010, local_layers 5 and 990, entropy model apart. The entropy model's
size and window are another config, entropy_model.py: they change the patches, not the model.
"""

import dataclasses

from blt_jax.config import ConfigError
from blt_jax.families import preset
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from experiments import published
from experiments.base import of

BYTES, PATCH = 100e9, 4.5


def cross_attention():
    """Table 7. Layers of decoder and encoder that have it: published BPB."""
    where = lambda decoder, encoder: dict(decoder_cross=decoder, encoder_cross=encoder)
    return {
        "none": where("none", "none"),  # 0.866
        # 0.891, but from queries that were not pooled: here they always are
        "encoder-all": where("none", "all"),
        "encoder-last": where("none", "last"),  # 0.886, likewise
        "decoder-first": where("first", "last"),  # 0.861
        "decoder-all": where("all", "last"),  # 0.846
        "both-all": where("all", "all"),  # 0.844
    }


def hash_tables():
    """Table 8. n of the n-grams and rows of each table: published BPB."""
    few, low, high, all_n = dict(hash_sizes=()), (3, 4, 5), (6, 7, 8), (3, 4, 5, 6, 7, 8)
    variants = {"none": few | dict(hash_functions=0)}  # 0.850
    # 0.842, 0.837 and 0.833 at 100k rows; 3to8: 0.826 at 400k
    for name, sizes in (("6to8", high), ("3to5", low), ("3to8", all_n)):
        for rows in (100_000, 200_000, 400_000):
            variants[f"{name}-{rows // 1000}k"] = dict(hash_sizes=sizes, hash_rows=rows)
    return variants


def local_layers():
    """Table 9. Layers of encoder and decoder, with and without n-grams: published BPB."""
    base, variants = preset("blt-1b"), {}
    split = [
        (1, 9, True),  # 0.850
        (5, 5, True),  # 0.843
        (5, 5, False),  # 0.844
        (3, 7, False),  # 0.824
        (1, 9, False),  # 0.822
    ]
    for encoder, decoder, bare in split:
        changes = dict(
            encoder=dataclasses.replace(base.encoder, layers=encoder),
            decoder=dataclasses.replace(base.decoder, layers=decoder),
        )
        variants[f"{encoder}-{decoder}" + "-no-hash" * bare] = changes | (
            published.NO_HASH if bare else {}
        )
    return variants


TABLES = {"cross_attention": cross_attention, "hash": hash_tables, "local_layers": local_layers}


def get_config(table="cross_attention"):
    if table not in TABLES:
        raise ConfigError(f"ablations.py:{table}: tables are {', '.join(TABLES)}")
    families = {}
    for name, changes in TABLES[table]().items():
        config = dataclasses.replace(preset("blt-1b"), **changes)
        one = published.size(published.model(config), [published.budget(config, PATCH, BYTES)])
        patching = of(Patching, rule="entropy", target=PATCH)
        families[name] = of(
            Family, label=name.replace("-", " "), patching=patching, sizes={"1b": one}
        )
    return published.study(f"ablation_{table}", families)
