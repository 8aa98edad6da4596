"""What the suites run: models of a laptop's size, batches of random bytes, and a stopwatch."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from blt_jax.config import Stack
from blt_jax.families.blt.config import Blt
from blt_jax.patching.row_layout import row_layout

MEAN_PATCH = 4.5  # bytes


def blt(latent_width: int = 512) -> Blt:
    """8.3M parameters without embeddings; `latent_width` 16 leaves little but the local models."""
    local = lambda layers: Stack(layers, 256, 4, window=512)
    latent = Stack(1, latent_width, max(1, latent_width // 64))
    return Blt(local(1), latent, local(3), slots=2, hash_rows=8192)


def bytes_batch(
    rows: int, length: int, seed: int = 0, mean: float = MEAN_PATCH
) -> dict[str, np.ndarray]:
    """Random bytes, each position a patch start with chance 1 / mean; targets are the next
    bytes.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 260, (rows, length + 1)).astype(np.int32)
    slots = int(length / mean * 1.05) + 2
    segment_L, layouts = np.ones(length, np.int32), []
    for _ in range(rows):
        starts = rng.random(length) < 1 / mean
        starts[:2] = True
        spare = np.flatnonzero(starts)[2:]
        starts[rng.permutation(spare)[: max(0, starts.sum() - slots)]] = False
        layouts.append(row_layout(starts, segment_L, slots))
    patch, read, patch_segment = (np.stack(arrays) for arrays in zip(*layouts, strict=True))
    return unit_batch(ids) | {
        "patch_BxL": patch,
        "read_BxL": read,
        "patch_segment_BxP": patch_segment,
    }


def unit_batch(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of ids [B, L + 1] as inputs and targets, one document per row."""
    return {
        "ids_BxL": ids[:, :-1],
        "targets_BxL": ids[:, 1:],
        "segment_BxL": np.ones_like(ids[:, :-1]),
        "loss_mask_BxL": np.ones(ids[:, :-1].shape, np.float32),
    }


def layers_for(flops: float, at: Callable[[int], float]) -> int:
    """As many layers as bring `at(layers)`, FLOPs that grow by as much with each, nearest to
    `flops`.
    """
    one, two = at(1), at(2)
    return max(1, 1 + round((flops - one) / (two - one)))


def fastest(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of `repeats` calls, after one that is not counted (it compiles)."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def matmul_rate(dtype: Any, size: int = 2048) -> float:
    """FLOP/s of a size^3 matrix product: what the device gives at best."""
    square = jax.numpy.ones((size, size), dtype)
    product = jax.jit(lambda x: x @ x)
    return 2 * size**3 / fastest(lambda: product(square), 5)
