"""A latent model that has fallen silent: its gradient is next to nothing, and the local models get
on without it.

A learning rate that is too high does that, and the loss does not tell: a BLT whose decoder no
longer reads its patches still learns, as a byte LM with a window.
"""

import math
from typing import Any

# Least share that counts as alive. In the quickstart's 18 runs of BLT at rates of 1.6e-2 and 3.2e-2
# the last tenth's largest was 1.1e-3 to 7e-2, but for the one whose BPB no patch threshold moved
# any more: 1.6e-4.
ALIVE = 4e-4
LAST = 0.1  # of a run's steps


def warning(lines: list[dict[str, Any]], steps: int, rate: float) -> str:
    """What to tell of a run that ended with a silent latent model; "" for any other, or one
    without local models around it.

    `lines`: of metrics.jsonl; `steps` of the run; `rate`: its peak learning rate. Silent is a
    latent model whose gradient norm, over that of encoder and decoder, stayed below `ALIVE` in the
    last tenth.
    """
    last = [line for line in lines if line["step"] > (1 - LAST) * steps]
    # A run that was begun long ago has none.
    norms = [line["norms"]["gradient"] for line in last if "norms" in line]
    pairs = [
        (parts["latent"], math.hypot(parts["encoder"], parts["decoder"]))
        for parts in norms
        if {"latent", "encoder", "decoder"} <= set(parts)
    ]
    if not pairs or not all(latent < ALIVE * local for latent, local in pairs):
        return ""
    share = max(latent / local for latent, local in pairs)
    return (
        f"the latent model's gradient is {share:.1g} of the local models': its output no longer "
        f"matters; lower optimizer.learning_rate (now {rate:g})"
    )
