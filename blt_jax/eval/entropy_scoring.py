"""Entropies of a corpus by a byte LM: one value per id, each document by itself, no context lost.

A stack of N layers with window w sees N x (w - 1) ids back and no further, so a piece of a document
that is read with that many ids before it gets exactly the entropies of the whole document (RoPE is
relative). Documents, and pieces of those longer than a row, share rows as segments: attention does
not cross them. Reductions are float32; the result is rounded to float16 once (ARCHITECTURE.md).

Rows are split over a process's devices, parameters are on each of them. One thread makes rows and
sends them ahead of the devices; results are fetched while the next batch is computed.
"""

import bisect
import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.batch import Batch, blank
from blt_jax.config import BYTE_OFFSET, ConfigError, Mesh, round_up
from blt_jax.families import Model, network
from blt_jax.parallel import sharding
from blt_jax.parallel.mesh import make_mesh

NEWLINE = ord("\n") + BYTE_OFFSET
# Ids that a device takes at a time, about: enough to be busy.
BATCH = {"cpu": 16 << 10, "accelerator": 128 << 10}
AHEAD = 3  # batches that are made before they are requested
IN_FLIGHT = 2  # batches that the devices have


@functools.partial(jax.jit, static_argnums=(2, 3))
def entropies(params: Any, batch: Batch, config: Model, compute: network.Compute) -> jax.Array:
    """Entropies (nats), float32 [B, L], of the distribution after each id of `batch` (ids_BxL,
    segment_BxL).
    """
    return network.entropy(network.apply(params, batch, config, compute))


@dataclasses.dataclass
class Meter:
    """What a scoring did: ids of rows (padding and repeated context included), and seconds without
    a batch ready.
    """

    ids: int = 0
    waited: float = 0.0


def shape(
    config: Model, devices: Sequence[jax.Device], rows: int = 0, length: int = 0
) -> tuple[int, int]:
    """(rows, length) of a batch on `devices`. `rows`: per device; 0: as many as make the BATCH of
    their platform.

    `length` 0: 16 times the ids that the model sees back, so that what long documents repeat is at
    most 1/15. Raises ConfigError for what cannot measure entropies: a BLT, a token LM, or a model
    without a window.
    """
    if config.unit != "byte":
        raise ConfigError(
            f"the entropy model reads bytes, and this is {config.describe()}; give the run folder "
            "of a byte LM"
        )
    if config.context_reach is None:
        raise ConfigError(
            "the entropy model has no window: set entropy_model.size.model.stack.window"
        )
    length = length or max(8192, round_up(16 * config.context_reach, 128))
    batch = BATCH["cpu" if devices[0].platform == "cpu" else "accelerator"]
    return (rows or max(1, batch // length)) * len(devices), length


# ---------------------------------------------------------------- rows


def _pieces(counts, length, reach):
    """(document, first id read, first id scored, end) of pieces of at most `length` ids that score
    every id once.
    """
    for document, count in enumerate(counts):
        done = 0
        while done < count:
            begin = max(0, done - reach)
            end = min(count, begin + length)
            yield document, begin, done, end
            done = end


def _rows(pieces, length):
    """Lists of pieces that share a row: each, longest first, goes where least room stays (best fit
    decreasing).
    """
    rows, spaces = [], []  # spaces: sorted (room, row)
    for piece in sorted(pieces, key=lambda piece: piece[1] - piece[3]):
        need = piece[3] - piece[1]
        at = bisect.bisect_left(spaces, (need, -1))
        if at < len(spaces):
            room, row = spaces.pop(at)
        else:
            room, row = length, len(rows)
            rows.append([])
        rows[row].append(piece)
        if room > need:
            bisect.insort(spaces, (room - need, row))
    return rows


def _batch(group, rows, length, first, ids, newline_reset):
    """The arrays of up to `rows` rows; `first`: number of the group's first document."""
    batch = blank(("ids_BxL", "segment_BxL"), rows, length)
    ids_BxL, segment_BxL = batch["ids_BxL"], batch["segment_BxL"]
    for b, pieces in enumerate(group):
        at, segment = 0, 1
        for document, begin, _, end in pieces:
            span = slice(at, at + end - begin)
            ids_BxL[b, span] = ids(first + document, begin, end)
            segment_BxL[b, span] = segment
            if newline_reset:  # a newline closes its own segment: what follows starts afresh
                newline = ids_BxL[b, span] == NEWLINE
                segment_BxL[b, span] += np.cumsum(newline) - newline
            segment, at = segment_BxL[b, span.stop - 1] + 1, span.stop
    return batch


def _ahead(iterator, depth):
    """The items of `iterator`, which a thread of its own makes up to `depth` ahead of their use."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        ready = collections.deque(pool.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := ready.popleft().result()) is not end:
                ready.append(pool.submit(next, iterator, end))
                yield item
        finally:
            for future in ready:
                future.cancel()


# ---------------------------------------------------------------- scoring


def score(
    params: Any,
    config: Model,
    counts: Any,
    ids: Callable[[int, int, int], np.ndarray],
    *,
    ranges: Sequence[tuple[int, int]] | None = None,
    rows: int = 0,
    length: int = 0,
    newline_reset: bool = False,
    devices: Sequence[jax.Device] | None = None,
    meter: Meter | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yields float16 [N] entropies (nats, of the distribution after each id) of one document after
    the other.

    `counts` int [documents]: ids of each; `ids(i, begin, end)`: int32 ids of document i, called
    from another thread. `ranges`: the (first, end) of the documents to score; default: all, as one.
    No row holds documents of two ranges, nor does a batch, so a range's result does not depend on
    what else is scored; its results are held in memory. `rows`, `length`: see `shape`. `devices`:
    default, all of this process. `progress(done, of)`: ids. Raises ConfigError: see `shape`.
    """
    devices = jax.local_devices() if devices is None else devices
    meter = Meter() if meter is None else meter
    rows, length = shape(config, devices, rows, length)
    mesh = make_mesh(Mesh(), devices)
    compute = network.Compute(jnp.float32, attention=network.backend_of(devices[0].platform))
    params = jax.device_put(params, sharding.everywhere(mesh))
    counts = np.asarray(counts)
    ranges = [(0, len(counts))] if ranges is None else ranges

    def batches():
        """(range, rows of pieces, batch on the devices, whether it is the last of its range)."""
        for first, end in ranges:
            planned = _rows(
                _pieces(counts[first:end].tolist(), length, config.context_reach), length
            )
            for at in range(0, len(planned), rows):
                group = planned[at : at + rows]
                batch = _batch(group, rows, length, first, ids, newline_reset)
                yield (
                    (first, end),
                    group,
                    jax.device_put(batch, sharding.batch_sharding(mesh)),
                    at + rows >= len(planned),
                )

    def measured():
        """As `batches`, with the entropies [B, L] that the devices are still computing."""
        ready, running = _ahead(batches(), AHEAD), collections.deque()
        while True:
            began = time.perf_counter()
            item = next(ready, None)
            meter.waited += time.perf_counter() - began
            if item is None:
                break
            where, group, batch, last = item
            with sharding.context(mesh):
                running.append((where, group, entropies(params, batch, config, compute), last))
            meter.ids += rows * length
            if len(running) == IN_FLIGHT:
                yield running.popleft()
        yield from running

    flat, done, of = None, 0, int(sum(counts[first:end].sum() for first, end in ranges))
    for (first, end), group, entropy_BxL, last in measured():
        if flat is None:
            starts = np.concatenate([[0], np.cumsum(counts[first:end])])
            flat = np.empty(starts[-1], np.float16)
        half_BxL = np.asarray(entropy_BxL).astype(np.float16)
        for b, pieces in enumerate(group):
            at = 0
            for document, begin, scored, stop in pieces:
                to = starts[document]
                flat[to + scored : to + stop] = half_BxL[b, at + scored - begin : at + stop - begin]
                at, done = at + stop - begin, done + stop - scored
        if progress is not None:
            progress(done, of)
        if last:
            yield from np.split(flat, starts[1:-1])
            flat = None
