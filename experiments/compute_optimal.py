"""Compute-optimal scaling from 400M to 8B: BLT paper, Figure 6 (and at 8B its Table 6).

    python -m launch.plan  --config=experiments/compute_optimal.py --hardware=h100 --devices=256
    python -m launch.plan  --config=experiments/compute_optimal.py --runs='*-8b-*' \\
        --compile=v5p:4x4x4
    python -m launch.sweep --config=experiments/compute_optimal.py --workdir=runs/compute_optimal \\
        --config.data.input='corpus/*.jsonl.zst'

Question: at the training FLOPs that are optimal for a BPE model of each size, do patches of bytes
reach lower bits per byte, and does it grow better with size? Each size has one budget: its Llama-3
token model on 105 bytes per latent parameter, the ratio behind the paper's Table 2 (50B bytes at
470M, 400B at 3.9B); every family gets the same FLOPs (`paper` convention, entropy model apart) and
the same latent model. Rows of 8 KiB, batches of 4M bytes (the paper gives none for these runs).

Families: tokens of Llama 2 (32,000 entries) and Llama 3 (128,000); BLT on space patches, with and
without cross-attention; BLT on entropy patches of 4.5, 6 and 8 bytes; Megabyte++ (strides 4 and 6,
the rest of BLT); SpaceByte (no cross-attention, no n-grams). Published: BLT at or below Llama 3's
BPB at each size; patches of 8 bytes lose to Llama 2 at 1B and win at 8B. `compute_optimal.py:8b` or
`:400m,1b` plans some of the sizes.

Cost, by `launch.plan --hardware=h100 --mfu=0.4` (exact FLOPs): 50 runs, 74,700 device-hours, of
which the ten 8B runs take 47,600; the entropy model's training and scoring come on top.
"""

from blt_jax.config import ConfigError
from blt_jax.families import preset
from blt_jax.flops import parameters
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from experiments import published
from experiments.base import of

RATIO = 105  # bytes per latent parameter (docs/blt.md, section 11.1)


def budget(size):
    """Training FLOPs of the Llama-3 token model of this size at its optimum."""
    llama = preset(f"llama3-{size}")
    return published.budget(llama, 4.4, RATIO * parameters(llama)["latent"])


def family(label, patching, sizes, **changes):
    models = {size: published.model(preset(f"blt-{size}"), **changes) for size in sizes}
    entries = {size: published.size(model, [budget(size)]) for size, model in models.items()}
    return of(Family, label=label, patching=patching, sizes=entries)


def tokens(label, vocab, name, sizes):
    models = {size: published.model(preset(f"{name}-{size}")) for size in sizes}
    return published.token_family(
        label, vocab, {size: published.size(m, [budget(size)]) for size, m in models.items()}
    )


def get_config(sizes=""):
    sizes = tuple(sizes.split(",")) if sizes else published.SIZES
    if set(sizes) - set(published.SIZES):
        raise ConfigError(
            f"compute_optimal.py:{','.join(sizes)}: sizes are {', '.join(published.SIZES)}"
        )
    space = of(Patching, rule="space")
    families = {
        "llama2": tokens("Llama 2 tokens", 32_000, "llama2", sizes),
        "llama3": tokens("Llama 3 tokens", 128_000, "llama3", sizes),
        "blt-space": family("BLT, space patches", space, sizes),
        "blt-space-no-cross": family(
            "BLT, space patches, no cross-attention", space, sizes, **published.NO_CROSS
        ),
    }
    for target in (4.5, 6, 8):
        patching = of(Patching, rule="entropy", target=float(target))
        families[f"blt-entropy-{published.key(target)}"] = family(
            f"BLT, entropy patches of {target}", patching, sizes
        )
    for stride in (4, 6):
        patching = of(Patching, rule="strided", stride=stride)
        families[f"megabyte-{stride}"] = family(f"Megabyte++, patches of {stride}", patching, sizes)
    spacebyte = published.NO_CROSS | published.NO_HASH
    families["spacebyte"] = family("SpaceByte", space, sizes, **spacebyte)
    return published.study("compute_optimal", families)
