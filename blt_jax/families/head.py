"""Cross-entropy of a model's targets, without the logits of a whole row where these are large.

A row of 16 KiB is 3,700 tokens; over a vocabulary of 128,000 its logits alone are 1.9 GB, and
several times that with their gradient. Positions do not meet in the head, so it is applied to some
at a time and once more in the backward pass (Chen et al., arXiv 1604.06174). Small heads, every
byte model's among them, see no difference.
"""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from blt_jax.batch import Batch
from blt_jax.nn.block import tied_head, untied_head
from blt_jax.nn.compute import Compute
from blt_jax.nn.constraints import by_rows, constrain

LOGITS = 2**25  # most logits of a row that exist at a time: 128 MiB of float32


def positions_at_a_time(positions: int, vocab: int) -> int:
    """Positions of a row that the head reads together: all, or equal parts (the last is filled
    up).
    """
    parts = -(-positions * vocab // LOGITS)
    return -(-positions // parts)


def losses(params: Any, batch: Batch, config: Any, compute: Compute) -> jax.Array:
    """Nats of each target, float32 [B, L], whatever the mask says."""
    x_BxLxD = config.module(compute).apply({"params": params}, batch, head=False)
    weights, targets_BxL = _weights(params, config), batch["targets_BxL"]
    part = positions_at_a_time(x_BxLxD.shape[1], config.vocab)

    def some(weights, x, targets):
        return optax.softmax_cross_entropy_with_integer_labels(
            _logits(weights, x, config, compute), targets
        )

    def in_parts(weights, x_BxLxD, targets_BxL):
        B, L = targets_BxL.shape
        count = -(-L // part)

        def cut(x):
            """[B, L, ...] -> [count, B, part, ...], the end padded."""
            padded = jnp.pad(x, [(0, 0), (0, count * part - L)] + [(0, 0)] * (x.ndim - 2))
            return padded.reshape(B, count, part, *x.shape[2:]).swapaxes(0, 1)

        again = jax.checkpoint(lambda xs: some(weights, *xs), prevent_cse=False)
        nats = jax.lax.map(again, (cut(x_BxLxD), cut(targets_BxL)))
        return nats.swapaxes(0, 1).reshape(B, count * part)[:, :L]

    if part == x_BxLxD.shape[1]:
        return some(weights, x_BxLxD, targets_BxL)
    # Else XLA would gather the head, and sum its gradient over the devices, anew for each part.
    return by_rows(in_parts, weights, x_BxLxD, targets_BxL)


def logits(params: Any, x_BxLxD: jax.Array, config: Any, compute: Compute) -> jax.Array:
    """Logits [B, L, V], float32, of the states that a model returns without its head."""
    return _logits(_weights(params, config), x_BxLxD, config, compute)


def entropy(logits_BxLxV: jax.Array) -> jax.Array:
    """Entropies (nats), float32 [B, L], of the distributions that logits give."""
    logp = jax.nn.log_softmax(logits_BxLxV, axis=-1)
    return -jnp.sum(jnp.exp(logp) * logp, axis=-1)


def _weights(params, config):
    """The head's: parameters of `untied_head`, or the embedding, laid as a head's."""
    path = config.embedding_path if config.tied else config.head_path
    weights = functools.reduce(operator.getitem, path, params)
    return constrain(weights, "vocab", "residual") if config.tied else weights


def _logits(weights, x_BxLxD, config, compute):
    """What the head of a model gives; over `tensor` each device has a part of V."""
    if config.tied:
        logits_BxLxV = tied_head(x_BxLxD, weights, compute.dtype)
    else:
        logits_BxLxV = untied_head(config.vocab, compute.dtype).apply({"params": weights}, x_BxLxD)
    return constrain(logits_BxLxV, "batch", "length", "vocab")
