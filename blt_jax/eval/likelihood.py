"""Nats of ids under a model, many texts at a time: each id once, long texts through windows that
overlap by half.

Windows of about one length share a batch, and a length with less than a batch joins the next longer
one: few programs are compiled. The host makes a batch while the device is at the one before.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.batch import Batch, padded
from blt_jax.families import Model, network
from blt_jax.patching import row_layout

POSITIONS = 1 << 14  # ids that the device takes at a time
LOGITS = 1 << 28  # most logits that exist at a time where they are requested: 1 GiB of float32


@dataclasses.dataclass
class Scored:
    """What a model said of a text: `nats_N` float64, of each scored id; `greedy_N`: whether it was
    the likeliest.

    `units`: patches, tokens or bytes that the model read meanwhile, BOS aside.
    """

    nats_N: np.ndarray
    greedy_N: np.ndarray
    units: int = 0

    @property
    def bits(self) -> float:
        return float(self.nats_N.sum() / np.log(2))


def windows(count: int, context: int, first: int = 0) -> list[tuple[int, int, int]]:
    """[(begin, first scored, end)] over `count` inputs: every target from `first` up once.

    Each window but the first carries half a context over. An end that half a context holds is
    scored at once, with the longest context that it can have.
    """
    if count <= first:
        return []
    if count - first <= context // 2:
        return [(max(0, count - context), first, count)]
    spans, done = [], 0
    while done < count:
        begin = max(0, done - context // 2)
        spans.append((begin, max(done, first), done := min(begin + context, count)))
    return [window for window in spans if window[1] < window[2]]


def _batches(lengths, positions):
    """[(padded length, [windows by number])]: full batches, and one rest of each length that keeps
    its own.
    """
    classes = {}
    for number, length in enumerate(lengths):
        classes.setdefault(row_layout.padded_length(length), []).append(number)
    batches, carried = [], []
    for length, own in sorted(classes.items()):
        rows, own = max(1, positions // length), carried + own
        if len(own) < rows and length < max(classes):
            carried = own
            continue
        carried = []
        # What follows a full batch is filled up with its last row: another program would cost more.
        for at in range(0, len(own), rows):
            some = own[at : at + rows]
            batches.append((length, some + some[-1:] * (rows - len(some) if at else 0)))
    return batches


def score(
    params: Any,
    config: Model,
    compute: network.Compute,
    rows: Sequence[np.ndarray],
    make_batch: Callable[[list[np.ndarray]], Batch],
    context: int,
    firsts: Sequence[int] | None = None,
    greedy: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
    """[Scored] of rows of ids (int32 [N + 1], targets included): of targets from `firsts[row]` up,
    default all.

    `make_batch(rows of inputs)`: a model batch, padded to `row_layout.padded_length`.
    `progress(done, of)`: ids scored. `greedy`: fill `greedy_N` too, which takes the logits.
    """
    firsts = [0] * len(rows) if firsts is None else firsts
    results = [
        Scored(np.zeros(len(r) - 1 - f), np.zeros(len(r) - 1 - f, bool))
        for r, f in zip(rows, firsts, strict=True)
    ]
    planned = [
        (row, *window)
        for row, ids in enumerate(rows)
        for window in windows(len(ids) - 1, context, firsts[row])
    ]
    positions = min(POSITIONS, LOGITS // config.vocab) if greedy else POSITIONS
    done, of, seen = 0, sum(len(result.nats_N) for result in results), set()

    def read(some, batch, nats_BxL, hits_BxL):
        nonlocal done
        nats_BxL, hits_BxL = np.asarray(nats_BxL, np.float64), np.asarray(hits_BxL)
        for b, number in enumerate(some):
            if number in seen:
                continue
            seen.add(number)
            row, begin, scored, end = planned[number]
            span, to = (
                slice(scored - begin, end - begin),
                slice(scored - firsts[row], end - firsts[row]),
            )
            result = results[row]
            result.nats_N[to], result.greedy_N[to] = nats_BxL[b, span], hits_BxL[b, span]
            result.units += _units(batch, b, span) - (scored == 0)
            done += end - scored
        if progress is not None:
            progress(done, of)

    running = None
    for _, some in _batches([end - begin for _, begin, _, end in planned], positions):
        batch = make_batch(
            [rows[row][begin:end] for row, begin, _, end in (planned[n] for n in some)]
        )
        parts = [
            rows[row][begin + 1 : end + 1] for row, begin, _, end in (planned[n] for n in some)
        ]
        batch |= padded({"targets_BxL": parts}, batch["ids_BxL"].shape[1])
        batch["loss_mask_BxL"] = np.ones(batch["ids_BxL"].shape, np.float32)
        computed = (_hits if greedy else _nats)(params, batch, config, compute)
        if running:
            read(*running)
        running = (some, batch, *computed)
    if running:
        read(*running)
    return results


def _units(batch, b, span):
    """Patches that begin in `span` of row b, or its positions."""
    if "patch_BxL" not in batch:
        return span.stop - span.start
    patch_L = batch["patch_BxL"][b]
    return int((np.diff(patch_L, prepend=-1) != 0)[span].sum())


@functools.partial(jax.jit, static_argnums=(2, 3))
def _nats(params, batch, config, compute):
    nats_BxL = network.nats(params, batch, config, compute)
    return nats_BxL, jnp.zeros(nats_BxL.shape, bool)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _hits(params, batch, config, compute):
    logits_BxLxV, targets_BxL = network.apply(params, batch, config, compute), batch["targets_BxL"]
    logp_BxLxV = jax.nn.log_softmax(logits_BxLxV, axis=-1)
    nats_BxL = -jnp.take_along_axis(logp_BxLxV, targets_BxL[..., None], axis=-1)[..., 0]
    return nats_BxL, jnp.argmax(logits_BxLxV, axis=-1) == targets_BxL
