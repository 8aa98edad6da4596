"""The 8B models of the BLT paper's Table 1: a trillion tokens, and as many training FLOPs in bytes.

    python -m launch.plan  --config=experiments/blt_1t.py --hardware=h100 --devices=256 --details
    python -m launch.plan  --config=experiments/blt_1t.py --compile=v5p:4x4x4 --runs='*entropy*'
    python -m launch.sweep --config=experiments/blt_1t.py --workdir=runs/blt_1t \\
        --config.data.input='corpus/*.jsonl.zst'

Question: at the training FLOPs of a Llama-3-like 8B on 1T tokens (4.4T bytes), what do bytes in
space patches (6T bytes in the paper) and entropy patches (4.5T bytes) reach? Rows of 16 KiB,
batches of 16M bytes, about 280,000 steps; entropies with the context reset at newlines. The paper
lowers the threshold at evaluation; here it stays. Cost, by `launch.plan --hardware=h100 --mfu=0.4`
(exact FLOPs): 95,400 device-hours for the three, entropy model apart. Published: average of seven
tasks 60.0 (Llama 3), 58.0 (space), 61.1 (entropy).
"""

from blt_jax.config import Train
from blt_jax.families import preset
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from experiments import published
from experiments.base import of

ROW = 16_384


def get_config(_=""):
    llama, blt = preset("llama3-8b"), preset("blt-8b")
    spent = published.budget(llama, 4.4, 4.4e12, context=ROW)
    entropy = of(Patching, rule="entropy", target=4.5, newline_reset=True)
    bytes_in = lambda patching: of(
        Family,
        label=f"BLT, {patching.rule} patches",
        patching=patching,
        sizes={"8b": published.size(published.model(blt))},
    )
    return published.study(
        "blt_1t",
        {
            "llama3": published.token_family(
                "Llama 3 tokens", 128_000, {"8b": published.size(published.model(llama))}
            ),
            "blt-space": bytes_in(of(Patching, rule="space")),
            "blt-entropy": bytes_in(entropy),
        },
        (spent,),
        data=published.data(ROW),
        train=of(Train, rows=1024, remat="full", device_rows=1),
    )
