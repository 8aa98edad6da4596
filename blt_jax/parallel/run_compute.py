"""How a run computes on a platform: dtype, attention, and how split tables are read."""

import functools
import logging

import jax.numpy as jnp

from blt_jax.config import Train
from blt_jax.nn.attention import backend_of
from blt_jax.nn.compute import Compute
from blt_jax.parallel import sharded_embedding

log = logging.getLogger(__name__)


@functools.cache  # so that it is logged once
def compute(train: Train, platform: str) -> Compute:
    """The Compute of a run on a jax platform. dtype "auto": bfloat16 where matrix units want it
    (ARCHITECTURE.md); attention "auto": the platform's own backend. What was chosen is logged.
    """
    dtype, attention = train.dtype, train.attention
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    if attention == "auto":
        attention = backend_of(platform)
    log.info(
        "%s: compute in %s, attention by %s, remat %s", platform, dtype, attention, train.remat
    )
    return Compute(jnp.dtype(dtype), train.remat, attention, sharded_embedding.lookup)
