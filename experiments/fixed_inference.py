"""Equal inference FLOPs, more and more training bytes: BLT paper, Figure 1 and Table 2, `:small` or
`:large`.

    python -m launch.plan  --config=experiments/fixed_inference.py:small --hardware=h100 \\
        --devices=64
    python -m launch.sweep --config=experiments/fixed_inference.py:large \\
        --workdir=runs/fixed_inference_large --config.data.input='corpus/*.jsonl.zst'

Question: among models that cost the same per byte at inference, from how many training bytes on do
longer patches with a larger latent model beat tokens? The small group costs 3.1e8 FLOPs per byte,
the large one 2.1e9 (`paper` convention, forward, 8 KiB of context, entropy model apart). The latent
models' width and depth are solved for that cost (`flops.match.shape_for_cost`); the local models
are those of Table 10, with three encoder layers for patches of 8 bytes. All cost the same, so equal
budgets are equal bytes: each budget is a number of training bytes, from half of what is
compute-optimal for BPE (50B bytes small, 400B large) to 8 and 4 times as many.

Published crossings: 150B bytes (small), 1T bytes (large). Cost: by `launch.plan --hardware=h100
--mfu=0.4` (exact FLOPs) the small group is 24 runs and 2,450 device-hours, the large one 20 runs
and 69,700, entropy model apart.
"""

import dataclasses

from blt_jax.config import ConfigError
from blt_jax.families import preset
from blt_jax.flops import match, training
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from experiments import published
from experiments.base import of

# group: FLOPs per byte, training bytes, the preset size of the token models and of BLT at 6 and 8
# bytes per patch
GROUPS = {
    "small": (3.1e8, (25e9, 50e9, 100e9, 150e9, 200e9, 400e9), "400m", "400m", "400m"),
    "large": (2.1e9, (200e9, 400e9, 700e9, 1e12, 1.6e12), "4b", "4b", "8b"),
}


def solved(template, cost, unit):
    """A Size of `template` with its latent model (or only stack) solved for `cost`."""
    how = dict(cost=cost, patch_size=unit, context_bytes=published.CONTEXT, convention="paper")
    return published.size(published.model(match.shape_for_cost(template, **how).model))


def get_config(group="small"):
    if group not in GROUPS:
        raise ConfigError(f"fixed_inference.py:{group}: groups are {', '.join(GROUPS)}")
    cost, text_bytes, tokens, short, long = GROUPS[group]
    families = {}
    for name, vocab in (("llama2", 32_000), ("llama3", 128_000)):
        one = solved(preset(f"{name}-{tokens}"), cost, published.BYTES_PER_TOKEN[vocab])
        families[name] = published.token_family(f"Llama {name[-1]} tokens", vocab, {group: one})
    for target, size, layers in ((6, short, 1), (8, long, 3)):
        template = preset(f"blt-{size}")
        template = dataclasses.replace(
            template, encoder=dataclasses.replace(template.encoder, layers=layers)
        )
        families[f"blt-entropy-{target}"] = of(
            Family,
            label=f"BLT, entropy patches of {target}",
            patching=of(Patching, rule="entropy", target=float(target)),
            sizes={group: solved(template, cost, target)},
        )
    return published.study(
        f"fixed_inference_{group}", families, [training(cost) * each for each in text_bytes]
    )
