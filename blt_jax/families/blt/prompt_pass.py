"""A BLT after prompts: one parallel pass that leaves the state from which bytes are decoded."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax.config import EOS
from blt_jax.families import Plan, Prompted, row_batch
from blt_jax.families.blt.config import Blt
from blt_jax.families.blt.decode import BltState, Open, Patches, readable
from blt_jax.families.head import logits
from blt_jax.nn import incremental, ring
from blt_jax.patching import row_layout


def prompt(
    params: Any,
    c: Blt,
    rows: list[np.ndarray],
    starts: list[np.ndarray],
    plan: Plan,
    room: int,
) -> Prompted:
    """`Model.prompt`."""
    patching = plan.patching
    assert patching is not None, "a BLT has patches"
    batch = row_batch.patched(rows, [row_layout.starts_to_lengths(s) for s in starts])
    ints = lambda values: np.array(list(values), np.int32)
    at = {
        "length_B": ints(map(len, rows)),
        "complete_B": ints(s.sum() - 1 for s in starts),  # patches that the prompt completes
        "begin_B": ints(np.flatnonzero(s)[-1] for s in starts),  # of the patch that it does not
    }
    longest = int((at["length_B"] - at["begin_B"]).max()) + room
    bound = patching.longest_patch or longest
    patches = patching.most_patches(room)
    positions = int(at["length_B"].max()) + room
    sizes = (
        ring.size_for(c.encoder.window, positions),
        min(bound, ring.room_for(longest)),
        ring.room_for(int(at["complete_B"].max()) + patches + 1),
        ring.size_for(c.decoder.window, positions),
    )
    logits_BxV, encoder, opened, pooled_BxE, latent, readables, decoder = _pass(
        params, batch, at, c, plan.compute, sizes
    )
    ends = [np.flatnonzero(row == EOS) for row in rows]
    # EOS in complete patches
    closed = [e[e < begin] for e, begin in zip(ends, at["begin_B"], strict=True)]
    document_P = [
        row_layout.patch_numbers(s)[e[-1]] + 1 if len(e) else 0
        for s, e in zip(starts, closed, strict=True)
    ]
    back = max(c.hash_sizes, default=1) - 1
    recent = [np.concatenate([np.zeros(back, np.int32), row])[len(row) :] for row in rows]
    ends_B = [len(every) > len(some) for every, some in zip(ends, closed, strict=True)]
    state = BltState(
        step=jnp.int32(0),
        position_B=jnp.array(at["length_B"]),
        document_B=jnp.array(row_batch.document_begins(rows, (EOS,))),
        recent_BxR=jnp.array(np.stack(recent), jnp.int32),
        encoder=encoder,
        decoder=decoder,
        open=Open(
            begin_B=jnp.array(at["begin_B"]),
            pooled_BxE=pooled_BxE,
            ends_B=jnp.array(ends_B),
            ring=opened,
        ),
        patches=Patches(
            step=jnp.int32(0),
            number_B=jnp.array(at["complete_B"]),
            document_B=jnp.array(document_P, jnp.int32),
            ring=latent,
            read=readables,
        ),
    )
    return Prompted(logits_BxV, state)


@functools.partial(jax.jit, static_argnames=("c", "compute", "sizes"))
def _pass(params, batch, at, c, compute, sizes):
    """(logits [B, V], ring of the encoder, of the bytes that patches read, pooled state of the open
    patch, ring of the latent model, what bytes read of the newest complete patch, ring of the
    decoder).
    """
    length_B, complete_B = at["length_B"], at["complete_B"]
    states, variables = c.module(compute).apply(
        {"params": params}, batch, head=False, method="states", mutable=["kept"]
    )
    kept = variables["kept"]
    at_end = incremental.at(states["logits_BxLxV"], length_B - 1)
    logits_BxV = logits(params, at_end, c, compute)[:, 0]
    encoder, decoder = kept["encoder"], kept["decoder"]
    if c.encoder_cross == "all":
        local, crosses = (
            [encoder[f"{name}_{i}"]["kv"] for i in range(c.encoder.layers)]
            for name in ("layer", "cross")
        )
    else:
        local = incremental.scanned(encoder["stack"]["layers"]["kv"])
        crosses = [encoder["cross"]["kv"]] if c.encoder_cross == "last" else []
    blocks = decoder["layers"]["block"] if c.decoder_cross == "all" else decoder["stack"]["layers"]
    pooled_BxE = incremental.at(
        encoder["pooled"], jnp.minimum(complete_B, encoder["pooled"].shape[1] - 1)
    )[:, 0]
    empty_B = at["begin_B"] == length_B
    newest_Bx1xD = incremental.at(states["latent_BxPxD"], complete_B - 1)
    return (
        logits_BxV,
        ring.filled(local, length_B, sizes[0]),
        ring.filled(crosses, length_B, sizes[1]),
        jnp.where(empty_B[:, None], -jnp.inf, pooled_BxE),
        ring.filled(incremental.scanned(kept["latent"]["layers"]["kv"]), complete_B, sizes[2]),
        readable(incremental.by_layer(params["decoder"]), c, compute, newest_Bx1xD),
        ring.filled(incremental.scanned(blocks["kv"]), length_B, sizes[3]),
    )
