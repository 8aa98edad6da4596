"""Hash n-gram embeddings: ids by 64-bit polynomial hash, computed exactly without 64-bit integers.

docs/blt.md, section 4.1: h = sum_j w_j p^j in wrapping signed 64-bit arithmetic, then floor-modulo
by the number of rows. On a device without int64 we keep h as four 16-bit limbs: token ids are below
2^9 and n is small, so a limb's sum stays far below 2^32 before its carry is passed on.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from blt_jax.nn.block import init_normal
from blt_jax.nn.compute import Compute
from blt_jax.nn.embedding import read

PRIMES = (
    1000000007,
    5915587277,
    1500450271,
    3267000013,
    5754853343,
    4093082899,
    9576890767,
    3628273133,
    2860486313,
    5463458053,
    3367900313,
)


def _shift(x_BxL, back):
    return jnp.pad(x_BxL, ((0, 0), (back, 0)))[:, : x_BxL.shape[1]]


def _windows(ids_BxL, segment_BxL, n, scope):
    """The n ids that end at each position, oldest first ([B, L] each; 0 before the row or
    document), and whether the whole n-gram lies inside.
    """
    window, complete = [], None
    for back in reversed(range(n)):
        if scope == "document":
            inside = _shift(segment_BxL + 1, back) == segment_BxL + 1
        else:
            inside = jnp.broadcast_to(jnp.arange(ids_BxL.shape[1]) >= back, ids_BxL.shape)
        window.append(jnp.where(inside, _shift(ids_BxL, back), 0).astype(jnp.uint32))
        complete = inside if complete is None else complete & inside
    return window, complete


def _digit_bits(rows):
    """Most bits that can be appended to a remainder below `rows` without leaving uint32."""
    return next(d for d in (16, 8, 4, 2, 1) if (rows << d) <= 2**32)


def hash_ids(
    ids_BxL: jax.Array,
    n: int,
    function: int,
    rows: int,
    *,
    segment_BxL: jax.Array | None = None,
    scope: str = "row",
    order: str = "oldest",
) -> jax.Array:
    """Row numbers in [0, rows) of the n-gram ending at each position: [B, L] int32."""
    window, _ = _windows(ids_BxL, ids_BxL if segment_BxL is None else segment_BxL, n, scope)
    if order == "newest":
        window = window[::-1]
    powers = [pow(PRIMES[function], j, 2**64) for j in range(n)]
    limbs = [
        sum(w * jnp.uint32((p >> 16 * i) & 0xFFFF) for w, p in zip(window, powers, strict=True))
        for i in range(4)
    ]
    for i in range(3):
        limbs[i + 1] += limbs[i] >> 16
    limbs = [limb & 0xFFFF for limb in limbs]

    bits = _digit_bits(rows)
    remainder = jnp.zeros_like(limbs[0])
    for limb in reversed(limbs):
        for shift in range(16 - bits, -1, -bits):
            digit = (limb >> shift) & ((1 << bits) - 1)
            remainder = ((remainder << bits) | digit) % jnp.uint32(rows)
    negative = (limbs[3] >> 15) == 1  # signed value = unsigned - 2^64
    wrapped = remainder + jnp.uint32(rows - pow(2, 64, rows))
    return (jnp.where(negative, wrapped, remainder) % jnp.uint32(rows)).astype(jnp.int32)


class HashEmbedding(nn.Module):
    """Sum over tables (function-major, then n) of the rows that the n-grams of each byte hash
    to.
    """

    sizes: tuple[int, ...]
    functions: int
    rows: int
    width: int
    short: str
    order: str
    within: str  # "row" | "document": how far back n-grams may look
    compute: Compute = Compute()

    def setup(self) -> None:
        tables = len(self.sizes) * self.functions
        init = nn.with_logical_partitioning(
            init_normal(self.width**-0.5), ("hash_tables", "hash_rows", "columns")
        )
        self.tables = self.param("tables", init, (tables, self.rows, self.width))

    def __call__(self, ids_BxL, segment_BxL):
        """Returns the sum [B, L, E]; zeros are added for n-grams that are omitted."""
        return self._read(self._numbers(ids_BxL, segment_BxL, self.within))

    def step(self, recent_BxL: jax.Array, known_BxL: jax.Array) -> jax.Array:
        """The sum [B, 1, E] of the last byte, from as many ids as n-grams are long and those that
        they may hold.
        """
        return self._read(self._numbers(recent_BxL, known_BxL, "document")[:, :, -1:])

    def _numbers(self, ids_BxL, segment_BxL, scope):
        """Row numbers in all tables laid end to end, [T, B, L]."""
        ids_TxBxL = []
        for f in range(self.functions):
            for s, n in enumerate(self.sizes):
                ids = hash_ids(
                    ids_BxL, n, f, self.rows, segment_BxL=segment_BxL, scope=scope, order=self.order
                )
                ids += (f * len(self.sizes) + s) * self.rows
                if self.short == "omit":
                    complete = _windows(ids_BxL, segment_BxL, n, scope)[1]
                    ids = jnp.where(complete, ids, len(self.sizes) * self.functions * self.rows)
                ids_TxBxL.append(ids)
        return jnp.stack(ids_TxBxL)

    def _read(self, ids_TxBxL):
        return read(self.tables.reshape(-1, self.width), ids_TxBxL, self.compute)
