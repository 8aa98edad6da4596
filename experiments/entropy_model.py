"""How large an entropy model, seeing how far? BLT paper, Figure 8: one study for each,
`:SIZE,WINDOW`.

    for s in 1m 10m 50m 100m; do for w in 64 128 512; do
      python -m launch.sweep --config=experiments/entropy_model.py:$s,$w \\
          --workdir=runs/entropy_$s-$w --config.data.input='corpus/*.jsonl.zst'; done; done

Question: does a better model of the next byte cut text better? A study keeps one entropy model,
since entropies lie beside the bytes of its store; so the twelve of the paper are twelve studies,
whose reports' points.csv go together. BLT at 400M and 1B, entropy patches of 4.5 bytes (the
threshold is solved anew for each model), the budgets of 25B, 50B and 100B bytes at 400M. Published,
as curves only: both help, with little left beyond 50M and 512 bytes.

Cost of one of the twelve, by `launch.plan --hardware=h100 --mfu=0.4` (exact FLOPs): 6 runs,
290 device-hours, besides training and scoring by the entropy model itself.
"""

from blt_jax.config import ConfigError, Stack
from blt_jax.families import preset
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching
from blt_jax.study.config import Family
from experiments import published
from experiments.base import of

# layers, width, heads
SHAPES = {"1m": (2, 192, 3), "10m": (6, 384, 6), "50m": (16, 512, 8), "100m": (14, 768, 12)}
PATCH = 4.5


def get_config(which="100m,512"):
    size, _, window = which.partition(",")
    if size not in SHAPES or not window.isdecimal():
        raise ConfigError(
            f"entropy_model.py:{which}: write SIZE,WINDOW such as 50m,512; sizes: "
            f"{', '.join(SHAPES)}"
        )
    layers, width, heads = SHAPES[size]
    entropy = Lm(Stack(layers, width, heads, window=int(window), rope_theta=10_000.0))
    budgets = [
        published.budget(preset("blt-400m"), PATCH, text_bytes)
        for text_bytes in (25e9, 50e9, 100e9)
    ]
    sizes = {
        name: published.size(published.model(preset(f"blt-{name}"))) for name in ("400m", "1b")
    }
    label = f"BLT, entropies of {size} seeing {window} bytes"
    blt = of(Family, label=label, patching=of(Patching, rule="entropy", target=PATCH), sizes=sizes)
    return published.study(
        f"entropy_model_{size}_{window}", {f"blt-{size}-{window}": blt}, budgets, entropy
    )
