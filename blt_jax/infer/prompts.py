"""Prompts: rows of ids as padded batches, and one parallel pass over them that leaves every cache
filled.

What a state holds is what decoding the prompt id by id would have left. Sizes of caches are static:
rings of local models hold one window, the latent model's and that of a model without window the
prompt and all that may follow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.config import EOS
from blt_jax.families import network
from blt_jax.families.blt import decode as blt
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm import decode as lm
from blt_jax.infer.generation import Params, Plan, State, exact
from blt_jax.nn import incremental, ring
from blt_jax.patching import live, row_layout, row_starts

# ---------------------------------------------------------------- static shapes


def padded(parts, size, fill=()):
    """Lists of arrays [L] as int32 [B, size], B a power of two; rows past the last are padding
    altogether.
    """
    found = {}
    for key, arrays in parts.items():
        out = np.full((1 << (len(arrays) - 1).bit_length(), size), dict(fill).get(key, 0), np.int32)
        for b, array in enumerate(arrays):
            out[b, : len(array)] = array
        found[key] = out
    return found


def lm_batch(rows, closes):
    """A batch of a plain LM of rows of any lengths."""
    segments = [row_layout.document_segments(row, closes) for row in rows]
    return padded(
        {"ids_BxL": rows, "segment_BxL": segments}, row_layout.padded_length(max(map(len, rows)))
    )


def blt_batch(rows, lengths):
    """A batch of a BLT of rows of any lengths with their patch lengths, the next byte counted."""
    long = row_layout.padded_length(max(map(len, rows)))
    made = [
        row_layout.rows_by_lengths(row[None], np.asarray(n)[None])
        for row, n in zip(rows, lengths, strict=True)
    ]
    parts = {key: [one[key][0] for one in made] for key in made[0]}
    most = max(map(len, parts["patch_segment_BxP"]))
    fewer = (
        (long // 4, long // 2) if long > 256 else ()
    )  # in short rows another program costs more than slots
    slots = next(slots for slots in (*fewer, long + 1, most) if slots >= most)
    slot_parts = {"patch_segment_BxP": parts.pop("patch_segment_BxP")}
    fill = {"patch_BxL": slots, "read_BxL": slots - 1}  # no slot; any slot
    return padded(parts, long, fill) | padded(slot_parts, slots)


def _room(positions):
    """At least so many slots: one of four sizes between powers of two, so that few programs are
    compiled.
    """
    step = max(64, 1 << (positions.bit_length() - 3))
    return -(-positions // step) * step


# ---------------------------------------------------------------- the pass


def start(params: Params, plan: Plan, rows, room):
    """State of a batch (B a power of two) after `rows`, lists of int32 ids [L >= 1], with caches
    for `room` more.

    `params`: trees as `network.apply` takes them.
    """
    rows = rows + rows[:1] * ((1 << (len(rows) - 1).bit_length()) - len(rows))
    if not isinstance(plan.model, Blt):
        logits_BxV, _, model = _after_lm(
            params.model, plan.model, plan.compute, rows, plan.closes, room, False
        )
        return State(logits_BxV, model, None, None)
    patcher, entropies = None, [None] * len(rows)
    if plan.patcher is not None:
        _, entropy_BxL, patcher = _after_lm(
            params.patcher, plan.patcher, exact(plan.compute), rows, plan.patcher_closes, room, True
        )
        rounded_BxL = (
            np.asarray(entropy_BxL)
            .astype(np.float16 if plan.rounds else np.float32)
            .astype(np.float32)
        )
        entropies = [
            rounded_L[: len(row)] for rounded_L, row in zip(rounded_BxL, rows, strict=True)
        ]
    starts = [
        row_starts.starts(row, e, plan.patching, include_next=True)
        for row, e in zip(rows, entropies, strict=True)
    ]
    logits_BxV, model = _after_blt(params.model, plan, rows, starts, room)
    return State(logits_BxV, model, patcher, live.after(rows, entropies, plan.patching))


def _after_lm(params, config, compute, rows, closes, room, measure):
    """(logits [B, V] of the next ids, entropies [B, L] where `measure`, LmState)."""
    size = _ring_size(config.stack, max(map(len, rows)) + room)
    length_B = np.array([len(row) for row in rows], np.int32)
    logits_BxV, entropy_BxL, kept = _lm_pass(
        params, lm_batch(rows, closes), length_B, config, compute, size, measure
    )
    document_B = np.array([_after_last(np.isin(row, closes)) for row in rows], np.int32)
    return (
        logits_BxV,
        entropy_BxL,
        lm.LmState(jnp.int32(0), jnp.array(length_B), jnp.array(document_B), kept),
    )


def _after_blt(params, plan, rows, starts, room):
    """(logits [B, V] of the next bytes, BltState). `starts`: bool [L + 1] of each row."""
    c, patching = plan.model, plan.patching
    batch = blt_batch(rows, [row_layout.starts_to_lengths(one) for one in starts])
    ints = lambda values: np.array(list(values), np.int32)
    at = {
        "length_B": ints(map(len, rows)),
        "complete_B": ints(one.sum() - 1 for one in starts),  # patches that the prompt completes
        "begin_B": ints(np.flatnonzero(one)[-1] for one in starts),  # of the patch that it does not
    }
    longest = int((at["length_B"] - at["begin_B"]).max()) + room
    bound = patching.longest_patch or longest
    patches = patching.most_patches(room)
    positions = int(at["length_B"].max()) + room
    sizes = (
        _ring_size(c.encoder, positions),
        min(bound, _room(longest)),
        _room(int(at["complete_B"].max()) + patches + 1),
        _ring_size(c.decoder, positions),
    )
    made = _blt_pass(params, batch, at, c, plan.compute, sizes)
    logits_BxV, encoder, opened, pooled_BxE, latent, read, decoder = made
    ends = [np.flatnonzero(row == EOS) for row in rows]
    closed = [
        one[one < begin] for one, begin in zip(ends, at["begin_B"], strict=True)
    ]  # EOS in complete patches
    document_P = [
        row_layout.patch_numbers(s)[one[-1]] + 1 if len(one) else 0
        for s, one in zip(starts, closed, strict=True)
    ]
    back = max(c.hash_sizes, default=1) - 1
    recent = [np.concatenate([np.zeros(back, np.int32), row])[len(row) :] for row in rows]
    return logits_BxV, blt.BltState(
        step=jnp.int32(0),
        position_B=jnp.array(at["length_B"]),
        document_B=jnp.array([_after_last(row == EOS) for row in rows], jnp.int32),
        recent_BxR=jnp.array(np.stack(recent), jnp.int32),
        encoder=encoder,
        decoder=decoder,
        open=blt.Open(
            begin_B=jnp.array(at["begin_B"]),
            pooled_BxE=pooled_BxE,
            ends_B=jnp.array(
                [len(all) > len(some) for all, some in zip(ends, closed, strict=True)]
            ),
            ring=opened,
        ),
        patches=blt.Patches(
            step=jnp.int32(0),
            number_B=jnp.array(at["complete_B"]),
            document_B=jnp.array(document_P, jnp.int32),
            ring=latent,
            read=read,
        ),
    )


def _ring_size(stack, positions):
    positions = _room(positions)
    return min(stack.window, positions) if stack.window else positions


def _after_last(flags):
    """The position after the last flag that is set, or 0."""
    found = np.flatnonzero(flags)
    return found[-1] + 1 if found.size else 0


@functools.partial(jax.jit, static_argnames=("config", "compute", "size", "measure"))
def _lm_pass(params, batch, length_B, config, compute, size, measure):
    x_BxLxD, found = network.module(config, compute).apply(
        {"params": params}, batch, head=False, mutable=["kept"]
    )
    logits_BxV = network.logits(params, _at(x_BxLxD, length_B - 1), config, compute)[:, 0]
    entropy_BxL = (
        network.entropy(network.logits(params, x_BxLxD, config, compute)) if measure else None
    )
    kvs = _stacked(found["kept"]["stack"]["layers"]["kv"]) if config.stack.layers else []
    return logits_BxV, entropy_BxL, ring.filled(kvs, length_B, size)


@functools.partial(jax.jit, static_argnames=("c", "compute", "sizes"))
def _blt_pass(params, batch, at, c, compute, sizes):
    """(logits [B, V], ring of the encoder, of the bytes that patches read, pooled state of the open
    patch, ring of the latent model, what bytes read of the newest complete patch, ring of the
    decoder).
    """
    length_B, complete_B = at["length_B"], at["complete_B"]
    states, found = network.module(c, compute).apply(
        {"params": params}, batch, head=False, method="states", mutable=["kept"]
    )
    logits_BxV = network.logits(params, _at(states["logits_BxLxV"], length_B - 1), c, compute)[:, 0]
    encoder, decoder = found["kept"]["encoder"], found["kept"]["decoder"]
    if c.encoder_cross == "all":
        local, crosses = (
            [encoder[f"{name}_{i}"]["kv"] for i in range(c.encoder.layers)]
            for name in ("layer", "cross")
        )
    else:
        local = _stacked(encoder["stack"]["layers"]["kv"])
        crosses = [encoder["cross"]["kv"]] if c.encoder_cross == "last" else []
    blocks = decoder["layers"]["block"] if c.decoder_cross == "all" else decoder["stack"]["layers"]
    pooled_BxE = _at(encoder["pooled"], jnp.minimum(complete_B, encoder["pooled"].shape[1] - 1))[
        :, 0
    ]
    empty_B = at["begin_B"] == length_B
    newest_Bx1xD = _at(states["latent_BxPxD"], complete_B - 1)
    return (
        logits_BxV,
        ring.filled(local, length_B, sizes[0]),
        ring.filled(crosses, length_B, sizes[1]),
        jnp.where(empty_B[:, None], -jnp.inf, pooled_BxE),
        ring.filled(_stacked(found["kept"]["latent"]["layers"]["kv"]), complete_B, sizes[2]),
        blt.readable(incremental.by_layer(params["decoder"]), c, compute, newest_Bx1xD),
        ring.filled(_stacked(blocks["kv"]), length_B, sizes[3]),
    )


def _at(x_BxLxD, position_B):
    """[B, 1, D]"""
    return jnp.take_along_axis(x_BxLxD, position_B[:, None, None], axis=1)


def _stacked(kv):
    """The pairs of a scan's layers."""
    k_NxBxLxGxC, v_NxBxLxGxC = kv
    return list(zip(k_NxBxLxGxC, v_NxBxLxGxC, strict=True))
