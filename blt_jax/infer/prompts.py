"""Prompts: one parallel pass over rows of ids that leaves every cache filled.

What a state holds is what decoding the prompt id by id would have left. Sizes of caches are static:
rings of local models hold one window, the latent model's and that of a model without window the
prompt and all that may follow.
"""

import numpy as np

from blt_jax.families import Plan
from blt_jax.infer.generation import Params, State
from blt_jax.patching import live, row_starts


def start(params: Params, plan: Plan, rows: list[np.ndarray], room: int) -> State:
    """State of a batch (B a power of two) after `rows`, lists of int32 ids [L >= 1], with caches
    for `room` more.

    `params`: trees as `network.apply` takes them.
    """
    rows = rows + rows[:1] * ((1 << (len(rows) - 1).bit_length()) - len(rows))
    patcher, lively, starts = None, None, None
    entropies: list[np.ndarray | None] = [None] * len(rows)
    if plan.patcher is not None:
        measured = plan.patcher.model.prompt(params.patcher, rows, None, plan.patcher, room)
        patcher, rounding = measured.state, np.float16 if plan.rounds else np.float32
        entropy_BxL = np.asarray(measured.entropies_BxL).astype(rounding).astype(np.float32)
        entropies = [
            entropy_L[: len(row)] for entropy_L, row in zip(entropy_BxL, rows, strict=True)
        ]
    if plan.patching is not None:
        starts = [
            row_starts.starts(row, entropy_L, plan.patching, include_next=True)
            for row, entropy_L in zip(rows, entropies, strict=True)
        ]
        lively = live.after(rows, entropies, plan.patching)
    prompted = plan.model.prompt(params.model, rows, starts, plan, room)
    return State(prompted.logits_BxV, prompted.state, patcher, lively)
