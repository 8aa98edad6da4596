"""Entropies of a corpus by a byte LM: one value per id, each document by itself, no context lost.

A stack of N layers with window w sees N x (w - 1) ids back and no further, so a piece of a document that
is read with that many ids before it gets exactly the entropies of the whole document (RoPE is relative).
Pieces of several documents share a row as segments. Reductions are float32; the result is rounded to
float16 once (design, section 4).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from blt_jax import models
from blt_jax.config import BYTE_OFFSET, ConfigError, Lm

NEWLINE = ord("\n") + BYTE_OFFSET


@functools.partial(jax.jit, static_argnums=(2, 3))
def entropies(params, batch, config, compute):
    """Entropies (nats), float32 [B, L], of the distribution after each id of `batch` (ids_BxL, segment_BxL)."""
    logp = jax.nn.log_softmax(models.apply(params, batch, config, compute), axis=-1)
    return -jnp.sum(jnp.exp(logp) * logp, axis=-1)


def _pieces(sizes, length, reach):
    """(document, first id read, first id scored, end) so that each piece fits what is left of its row."""
    space = length
    for document, size in enumerate(sizes):
        done = 0
        while done < size:
            context = min(reach, done)
            if space < min(context + min(size - done, length // 8), length):
                space = length
            take = min(size - done, space - context)
            yield document, done - context, done, done + take
            space -= context + take
            done += take


def score(params, config: Lm, documents, *, rows=8, length=0, newline_reset=False, dtype=jnp.float32):
    """Yields float16 [N] entropies (nats, of the distribution after each id) for each int32 [N] id array.

    `documents`: a sequence with len() and [i] -> ids. Raises ConfigError for a model without a window.
    """
    stack = config.stack
    if not stack.window:
        raise ConfigError("the entropy model has no window: set entropy_model.size.model.stack.window")
    compute = models.Compute(dtype, attention=models.backend_of(jax.default_backend()))
    reach = stack.layers * (stack.window - 1)
    length = length or max(2048, 4 * reach)
    sizes = [len(documents[i]) for i in range(len(documents))]
    rows_of_pieces, used = [[]], 0
    for piece in _pieces(sizes, length, reach):
        need = piece[3] - piece[1]
        if used + need > length:
            rows_of_pieces.append([])
            used = 0
        rows_of_pieces[-1].append((used, piece))
        used += need

    done, current = 0, None
    for first in range(0, len(rows_of_pieces), rows):
        group = rows_of_pieces[first : first + rows]
        ids_BxL, segment_BxL = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
        for b, pieces in enumerate(group):
            for number, (at, (document, begin, _, end)) in enumerate(pieces, start=1):
                ids = documents[document][begin:end]
                ids_BxL[b, at : at + end - begin] = ids
                # A newline closes its own segment: what follows starts afresh.
                lines = np.cumsum(ids == NEWLINE) - (ids == NEWLINE) if newline_reset else 0
                segment_BxL[b, at : at + end - begin] = number * (length + 1) + lines
        batch = {"ids_BxL": ids_BxL, "segment_BxL": segment_BxL}
        entropy_BxL = np.asarray(entropies(params, batch, config, compute))
        for b, pieces in enumerate(group):
            for at, (document, begin, scored, end) in pieces:
                if scored == 0:
                    current = np.empty(sizes[document], np.float16)
                current[scored:end] = entropy_BxL[b, at + scored - begin : at + end - begin]
                if end == sizes[document]:
                    assert document == done, "documents are scored in order"
                    done += 1
                    yield current
