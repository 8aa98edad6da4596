"""The loop of generation: one program on the device for some steps of all rows, fed by the host
until all have ended.

A row's result depends on its prompt, the seed and its number, not on the other rows nor on how many
steps a call takes. Rows that have ended go on unread, and close no patch.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.families import network
from blt_jax.families.blt import decode as blt
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm import decode as lm
from blt_jax.families.lm.config import Lm
from blt_jax.infer import sampling
from blt_jax.patching import Patching, live

STEPS = 32  # of a call: what the host waits for, and what a stop string may be overrun by


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a compiled loop depends on, the shapes aside."""

    model: Blt | Lm
    closes: tuple[int, ...]  # ids that end a document: attention does not look back over them
    patching: Patching | None = None  # of a Blt
    patcher: Lm | None = None  # the entropy model, where the patching needs one
    patcher_closes: tuple[int, ...] = ()
    rounds: bool = False  # entropies are rounded to float16, as training did
    compute: network.Compute = network.PLAIN


class Params(NamedTuple):
    """As from `layers.by_layer`."""

    model: dict
    patcher: dict | None


class State(NamedTuple):
    logits_BxV: jax.Array  # of the next id
    model: blt.BltState | lm.LmState
    patcher: lm.LmState | None
    live: live.Live | None  # of a Blt


class Settings(NamedTuple):
    keys_B: jax.Array
    temperature: jax.Array
    top_p: jax.Array
    eos: jax.Array  # the id that ends a row; -1: none


def feed(params: Params, plan: Plan, state: State, ids_B, ended_B):
    """(State after one more id of each row, bool [B]: whether it completed a patch)."""
    if not isinstance(plan.model, Blt):
        logits, model = lm.step(
            params.model, plan.model, plan.compute, state.model, ids_B, plan.closes
        )
        return state._replace(logits_BxV=logits, model=model), jnp.zeros(ids_B.shape, bool)
    patcher, entropy_B = state.patcher, jnp.zeros(ids_B.shape, jnp.float32)
    if plan.patcher is not None:
        logits, patcher = lm.step(
            params.patcher, plan.patcher, exact(plan.compute), patcher, ids_B, plan.patcher_closes
        )
        entropy_B = (
            live.as_float16(network.entropy(logits)) if plan.rounds else network.entropy(logits)
        )
    lively, starts_B = live.step(state.live, ids_B, entropy_B, plan.patching)
    starts_B &= ~ended_B
    logits, model = blt.step(params.model, plan.model, plan.compute, state.model, ids_B, starts_B)
    return State(logits, model, patcher, lively), starts_B


def exact(compute):
    return dataclasses.replace(compute, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="state")
def advance(params: Params, state: State, ended_B, first, count, settings: Settings, plan: Plan):
    """At most `count` (<= STEPS) ids for each row, the `first`-th and following.

    Returns (State, ids [B, STEPS], whether they completed a patch [B, STEPS], bool [B]: ended by
    EOS or before, steps).
    """
    B = ended_B.shape[0]

    def body(carry):
        state, ended_B, i, ids_BxS, closed_BxS = carry
        ids_B = sampling.choose(
            state.logits_BxV, settings.keys_B, first + i, settings.temperature, settings.top_p
        )
        ended_B |= ids_B == settings.eos
        state, closed_B = feed(params, plan, state, ids_B, ended_B)
        put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new[:, None], i, 1)
        return state, ended_B, i + 1, put(ids_BxS, ids_B), put(closed_BxS, closed_B)

    start = (
        state,
        ended_B,
        jnp.int32(0),
        jnp.zeros((B, STEPS), jnp.int32),
        jnp.zeros((B, STEPS), bool),
    )
    state, ended_B, i, ids_BxS, closed_BxS = jax.lax.while_loop(
        lambda carry: (carry[2] < count) & ~carry[1].all(), body, start
    )
    return state, ids_BxS, closed_BxS, ended_B, i


def stream(
    params,
    plan,
    state,
    rows,
    max_new,
    *,
    temperature=0.0,
    top_p=1.0,
    seed=0,
    eos=None,
    ends=None,
    steps=STEPS,
):
    """Yields, until all rows have ended, a list of (new ids, whether each completed a patch) for
    each of `rows` rows.

    `state` is used up. A row ends before `eos`, after `max_new` ids, and once `ends(row, all its
    new ids)` is true. `steps`: ids at a time.
    """
    B = state.logits_BxV.shape[0]
    settings = Settings(
        sampling.row_keys(seed, B),
        jnp.float32(temperature),
        jnp.float32(top_p),
        jnp.int32(-1 if eos is None else eos),
    )
    ended_B, done, new = np.arange(B) >= rows, 0, [[] for _ in range(rows)]
    while done < max_new and not ended_B.all():
        count = min(steps, STEPS, max_new - done)
        before_B = ended_B
        state, ids_BxS, closed_BxS, ended_B, made = advance(
            params, state, before_B, done, count, settings, plan=plan
        )
        ids_BxS, closed_BxS, ended_B, made = (
            np.asarray(ids_BxS),
            np.asarray(closed_BxS),
            np.array(ended_B),
            int(made),
        )
        parts = []
        for row in range(rows):
            part = ([], [])
            for id, closed in zip(
                ids_BxS[row, :made].tolist(), closed_BxS[row].tolist(), strict=False
            ):
                if before_B[row] or id == eos:
                    break
                new[row].append(id)
                part[0].append(id)
                part[1].append(closed)
                if ends is not None and ends(row, new[row]):
                    ended_B[row] = True
                    break
            parts.append(part)
        yield parts
        done += made
