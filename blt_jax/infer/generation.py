"""The loop of generation: one program on the device for some steps of all rows, fed by the host
until all have ended.

A row's result depends on its prompt, the seed and its number, not on the other rows nor on how many
steps a call takes. Rows that have ended go on unread, and close no patch.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.families import Model, Plan
from blt_jax.families.head import entropy
from blt_jax.infer import sampling
from blt_jax.nn.compute import Compute
from blt_jax.patching import live

STEPS = 32  # of a call: what the host waits for, and what a stop string may be overrun by


class Params(NamedTuple):
    """As from `incremental.by_layer`."""

    model: Any
    patcher: Any | None


class State(NamedTuple):
    logits_BxV: jax.Array  # of the next id
    model: Any
    patcher: Any | None  # the entropy model's
    live: live.Live | None  # where patches are given


class Settings(NamedTuple):
    keys_B: jax.Array
    temperature: jax.Array
    top_p: jax.Array
    eos: jax.Array  # the id that ends a row; -1: none


def feed(
    params: Params, plan: Plan, state: State, ids_B: jax.Array, ended_B: jax.Array
) -> tuple[State, jax.Array]:
    """(State after one more id of each row, bool [B]: whether it completed a patch)."""
    patcher, lively, starts_B = state.patcher, state.live, jnp.zeros(ids_B.shape, bool)
    if plan.patching is not None:
        entropy_B = jnp.zeros(ids_B.shape, jnp.float32)
        if plan.patcher is not None:
            logits_BxV, patcher, _ = plan.patcher.model.step(
                params.patcher,
                plan.patcher.compute,
                patcher,
                ids_B,
                starts_B,
                plan.patcher.closes,
            )
            entropy_B = entropy(logits_BxV)
            entropy_B = live.as_float16(entropy_B) if plan.rounds else entropy_B
        assert lively is not None, "a state of patches remembers where they started"
        lively, starts_B = live.step(lively, ids_B, entropy_B, plan.patching)
        starts_B &= ~ended_B
    logits_BxV, model, closed_B = plan.model.step(
        params.model, plan.compute, state.model, ids_B, starts_B, plan.closes
    )
    return State(logits_BxV, model, patcher, lively), closed_B


def measuring(model: Model, closes: tuple[int, ...], compute: Compute) -> Plan:
    """The plan of an entropy model: its entropies are float32."""
    return Plan(model, closes, exact(compute), measures=True)


def exact(compute: Compute) -> Compute:
    """`compute` in float32."""
    return dataclasses.replace(compute, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnames="plan", donate_argnames="state")
def advance(
    params: Params,
    state: State,
    ended_B: jax.Array,
    first: int | jax.Array,
    count: int | jax.Array,
    settings: Settings,
    plan: Plan,
) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
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
    params: Params,
    plan: Plan,
    state: State,
    rows: int,
    max_new: int,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    eos: int | None = None,
    ends: Callable[[int, list[int]], bool] | None = None,
    steps: int = STEPS,
) -> Iterator[list[tuple[list[int], list[bool]]]]:
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
    ended_B, done = np.arange(B) >= rows, 0
    new: list[list[int]] = [[] for _ in range(rows)]
    while done < max_new and not ended_B.all():
        count = min(steps, STEPS, max_new - done)
        before_B = ended_B
        state, *outputs = advance(params, state, before_B, done, count, settings, plan=plan)
        ids_BxS, closed_BxS, ended_B, steps_taken = map(np.array, outputs)
        parts: list[tuple[list[int], list[bool]]] = []
        for row in range(rows):
            ids: list[int] = []
            closes: list[bool] = []
            row_ids = ids_BxS[row, :steps_taken].tolist()
            for id, closed in zip(row_ids, closed_BxS[row].tolist(), strict=False):
                if before_B[row] or id == eos:
                    break
                new[row].append(id)
                ids.append(id)
                closes.append(closed)
                if ends is not None and ends(row, new[row]):
                    ended_B[row] = True
                    break
            parts.append((ids, closes))
        yield parts
        done += int(steps_taken)
