"""A BLT, one byte at a time: local models with a ring of one window, a latent step for each patch
that closes.

Once a byte is known, and whether the next one begins a patch: the encoder reads the byte; if its
patch is complete, that is pooled, reads its bytes, and goes through the latent model; the decoder
reads the newest complete patch. A patch's slots depend on the maximum over all of its bytes, so
what is kept of an open patch is that maximum so far, and the keys and values of its bytes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from blt_jax.config import EOS
from blt_jax.families.blt.config import Blt
from blt_jax.families.blt.model import byte_reads_patch, hash_embedding, patch_reads_bytes
from blt_jax.families.head import logits
from blt_jax.nn import incremental, ring
from blt_jax.nn.block import Linear
from blt_jax.nn.compute import Compute
from blt_jax.nn.embedding import read
from blt_jax.nn.norm import RMSNorm
from blt_jax.nn.ring import Ring

# Bytes of an open patch that are read without a look at older ones; longer patches are rare.
NEAR = 32


class Patches(NamedTuple):
    """What changes when a patch closes. Steps are the latent model's own: of all rows, where any
    closes a patch.
    """

    step: jax.Array  # int32 scalar
    number_B: jax.Array  # int32: complete patches
    document_B: jax.Array  # int32: the first of them that the latent model may look back on
    ring: Ring  # of the latent model
    read: tuple  # what bytes read of the newest complete patch: see `readable`


class Open(NamedTuple):
    """The bytes of the patch that is not complete yet."""

    begin_B: jax.Array  # int32: position of the first
    pooled_BxE: jax.Array  # maximum of their states
    ends_B: jax.Array  # bool: an EOS is among them
    ring: Ring  # their keys and values, a layer for each cross-attention of the encoder


class BltState(NamedTuple):
    step: jax.Array  # int32 scalar: steps since the prompts, the same for all rows
    position_B: jax.Array  # int32, of the next byte
    document_B: jax.Array  # int32: where its document begins
    recent_BxR: jax.Array  # int32: the newest ids, as many as the longest n-gram holds but one
    encoder: Ring
    decoder: Ring
    open: Open
    patches: Patches


def step(
    params: Any,
    c: Blt,
    compute: Compute,
    state: BltState,
    ids_B: jax.Array,
    starts_B: jax.Array,
) -> tuple[jax.Array, BltState]:
    """`Model.step`; `starts_B` also says which rows complete a patch."""
    position_B, h_Bx1xE, state = _encode(params["encoder"], c, compute, state, ids_B)
    patches = jax.lax.cond(
        starts_B.any(),
        lambda patches, opened: close(
            params, c, compute, patches, opened, state.step, position_B, starts_B
        ),
        lambda patches, opened: patches,
        state.patches,
        state.open,
    )
    opened = state.open._replace(
        begin_B=jnp.where(starts_B, position_B + 1, state.open.begin_B),
        pooled_BxE=jnp.where(starts_B[:, None], -jnp.inf, state.open.pooled_BxE),
        ends_B=state.open.ends_B & ~starts_B,
    )
    logits_BxV, decoder = _decode(params, c, compute, state, h_Bx1xE, patches.read)
    return logits_BxV, state._replace(
        step=state.step + 1,
        position_B=position_B + 1,
        document_B=jnp.where(ids_B == EOS, position_B + 1, state.document_B),
        decoder=decoder,
        open=opened,
        patches=patches,
    )


def _encode(params, c: Blt, compute, state: BltState, ids_B):
    """The byte enters: (its position, its state [B, 1, E], state with encoder, recent ids and open
    patch renewed).
    """
    stack, position_B, opened = c.encoder, state.position_B, state.open
    recent_BxR = jnp.concatenate([state.recent_BxR, ids_B[:, None]], axis=1)
    embedded: Any = read(params["embedding"], ids_B[None, :, None], compute)
    if c.hash_tables:
        back = recent_BxR.shape[1] - 1 - jnp.arange(recent_BxR.shape[1])
        begin_B = state.document_B if c.hash_scope == "document" else jnp.zeros_like(position_B)
        known_BxR = (position_B[:, None] - back >= begin_B[:, None]).astype(jnp.int32)
        hashed = hash_embedding(c, compute)
        embedded += hashed.apply({"params": params["hash"]}, recent_BxR, known_BxR, method="step")
        if c.hash_norm:
            embedded /= c.hash_tables + 1
    every = c.encoder_cross == "all"
    trees = (
        [params[f"layer_{i}"] for i in range(stack.layers)] if every else params["stack"]["layers"]
    )
    states, encoder = incremental.run(
        stack, compute, trees, embedded, state.encoder, state.step, position_B, state.document_B
    )
    pooled = embedded if c.pool_from == "embeddings" else states[0 if every else -1]
    slot = opened.ring.slot(state.step)
    kvs = []
    seen = states if every else states[-1:]
    for (cross, tree), h, kv in zip(
        _crosses(params, c, compute), seen, opened.ring.layers, strict=False
    ):
        kvs.append(ring.write(kv, cross.apply({"params": tree}, h, method="keys_values"), slot))
    opened = opened._replace(
        pooled_BxE=jnp.maximum(opened.pooled_BxE, pooled[:, 0]),
        ends_B=opened.ends_B | (ids_B == EOS),
        ring=Ring(ring.mark(opened.ring, position_B, state.step), tuple(kvs)),
    )
    state = state._replace(recent_BxR=recent_BxR[:, 1:], encoder=encoder, open=opened)
    return position_B, states[-1], state


def _crosses(params, c: Blt, compute):
    """(module, parameters) of each cross-attention of the encoder, in order."""
    module = patch_reads_bytes(c, compute)
    names = (
        [f"cross_{i}" for i in range(c.encoder.layers)] if c.encoder_cross == "all" else ["cross"]
    )
    return [(module, params[name]) for name in names if c.encoder_cross != "none"]


def close(
    params: Any,
    c: Blt,
    compute: Compute,
    patches: Patches,
    opened: Open,
    step: jax.Array,
    position_B: jax.Array,
    starts_B: jax.Array,
) -> Patches:
    """The open patches of rows with `starts_B` go through the latent model; other rows keep what
    they have.
    """
    x: Any = opened.pooled_BxE[:, None]
    if c.encoder_cross != "none":
        query = Linear((c.slots * c.encoder.width,), ("embed", "slots"), dtype=compute.dtype)
        slots: Any = query.apply({"params": params["encoder"]["query"]}, x)
        slots_BxKxE = slots.reshape(len(x), c.slots, -1)
        x = _read_bytes(
            params, c, compute, slots_BxKxE, opened, step, position_B, starts_B
        ).reshape(len(x), 1, -1)
    if c.slots_width != c.latent.width:
        into = Linear((c.latent.width,), ("slots", "embed"), dtype=compute.dtype)
        x = into.apply({"params": params["to_latent"]}, x)
    number_B = jnp.where(starts_B, patches.number_B, -1)
    states, latent = incremental.run(
        c.latent,
        compute,
        params["latent"]["layers"],
        x,
        patches.ring,
        patches.step,
        number_B,
        patches.document_B,
    )
    keep = lambda new, old: jnp.where(starts_B.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    return Patches(
        step=patches.step + 1,
        number_B=patches.number_B + starts_B,
        document_B=jnp.where(starts_B & opened.ends_B, patches.number_B + 1, patches.document_B),
        ring=latent,
        read=jax.tree.map(keep, readable(params["decoder"], c, compute, states[-1]), patches.read),
    )


def _read_bytes(params, c: Blt, compute, slots_BxKxE, opened: Open, step, position_B, starts_B):
    def through(opened):
        seen_BxW = opened.ring.position_BxW >= opened.begin_B[:, None]
        slots = slots_BxKxE
        for (cross, tree), kv in zip(
            _crosses(params["encoder"], c, compute), opened.ring.layers, strict=True
        ):
            slots = cross.apply({"params": tree}, slots, kv, seen_BxW, method="step")
        return slots

    if opened.ring.size <= NEAR:
        return through(opened)
    near = lambda opened: through(opened._replace(ring=ring.newest(opened.ring, step, NEAR)))
    longest = jnp.max(jnp.where(starts_B, position_B - opened.begin_B + 1, 0))
    return jax.lax.cond(longest <= NEAR, near, through, opened)


def readable(params: Any, c: Blt, compute: Compute, latent_Bx1xD: jax.Array) -> tuple[Any, ...]:
    """What bytes read of a patch, by its latent state: keys and values [B, 1, K, G, C] for each
    cross-attention of the decoder; without any the one slot itself [B, 1, E]. `params`: the
    decoder's.
    """
    count = c.slots if c.decoder_cross != "none" else 1
    project = Linear((count * c.decoder.width,), ("embed", "slots"), dtype=compute.dtype)
    slots: Any = project.apply({"params": params["from_latent"]}, latent_Bx1xD)
    if c.decoder_cross == "none":
        return (slots,)
    slots = slots.reshape(*slots.shape[:2], count, -1)
    cross = byte_reads_patch(c, compute)
    return tuple(
        cross.apply({"params": tree}, slots, method="keys_values") for tree in _reads(params, c)
    )


def _reads(params, c: Blt):
    """Parameters of each cross-attention of the decoder."""
    return (
        [params["cross"]]
        if c.decoder_cross == "first"
        else [layer["cross"] for layer in params["layers"]]
    )


def _decode(params, c: Blt, compute, state: BltState, h_Bx1xE, readables):
    """(logits [B, V], Ring) of the byte whose encoder state is given."""
    decoder, stack, cross = params["decoder"], c.decoder, byte_reads_patch(c, compute)
    every = c.decoder_cross == "all"

    def before(layer, h_Bx1xE):
        if layer and not every:
            return h_Bx1xE
        if c.decoder_cross == "none":
            return h_Bx1xE + readables[0]
        return cross.apply(
            {"params": _reads(decoder, c)[layer]}, h_Bx1xE, *readables[layer], method="step"
        )

    trees = [layer["block"] for layer in decoder["layers"]] if every else decoder["stack"]["layers"]
    states, kept = incremental.run(
        stack,
        compute,
        trees,
        h_Bx1xE,
        state.decoder,
        state.step,
        state.position_B,
        state.document_B,
        before,
    )
    h_Bx1xE = RMSNorm(stack.norm_eps).apply({"params": decoder["norm"]}, states[-1])
    return logits(params, h_Bx1xE, c, compute)[:, 0], kept
