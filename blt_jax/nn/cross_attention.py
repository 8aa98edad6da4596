"""Cross-attention between bytes and patches without a byte x patch array (cost O(L x K)).

Encoder: a patch slot reads the bytes of its own patch, a softmax over a sorted run of bytes.
Decoder: a byte reads the K slots of one patch, a gather and a K-way softmax.
Both are pre-norm, without RoPE; the residual is doubled as in the published model (docs/blt.md,
section 4.3).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from blt_jax.nn import ring
from blt_jax.nn.block import Linear
from blt_jax.nn.norm import RMSNorm
from blt_jax.nn.ring import KeysValues

RESIDUAL = {"double": 2.0, "single": 1.0}


class Segments:
    """Reductions of byte arrays over patches. Bytes with patch P (padding) are dropped, empty slots
    give 0.

    Row by row: over rows laid end to end, XLA would add up the whole batch's patches on every
    device.
    """

    def __init__(self, patch_BxL: jax.Array, patches: int):
        self.patches = patches
        self.ids_BxL = jnp.minimum(patch_BxL, patches)  # slot P collects the padding

    def _reduce(self, reduce, x_BxLx):
        row = lambda x, ids: reduce(x, ids, self.patches + 1, indices_are_sorted=True)[:-1]
        return jax.vmap(row)(x_BxLx, self.ids_BxL)

    def sum(self, x_BxLx: jax.Array) -> jax.Array:
        return self._reduce(jax.ops.segment_sum, x_BxLx)

    def max(self, x_BxLx: jax.Array) -> jax.Array:
        most = self._reduce(jax.ops.segment_max, x_BxLx)
        return jnp.where(jnp.isneginf(most), 0, most)


def spread(x_BxPx: jax.Array, patch_BxL: jax.Array) -> jax.Array:
    """Each byte's patch row: [B, P, ...] -> [B, L, ...]. Ids beyond the last slot read the last
    slot.
    """
    index = jnp.minimum(patch_BxL, x_BxPx.shape[1] - 1)
    return jnp.take_along_axis(
        x_BxPx, index.reshape(*index.shape, *[1] * (x_BxPx.ndim - 2)), axis=1
    )


class _Cross(nn.Module):
    width: int  # E, of bytes and of slots
    heads: int
    kv_heads: int
    residual: str  # one of RESIDUAL
    eps: float
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        channels = self.width // self.heads
        project = lambda count, axis: Linear(
            (count, channels), ("embed", axis, "head_width"), dtype=self.dtype
        )
        self.query_norm, self.context_norm = RMSNorm(self.eps), RMSNorm(self.eps)
        self.q = project(self.heads, "heads")
        self.k, self.v = project(self.kv_heads, "kv_heads"), project(self.kv_heads, "kv_heads")
        self.o = Linear((self.width,), ("heads", "head_width", "embed"), dtype=self.dtype)

    def queries(self, x: jax.Array) -> jax.Array:
        """Scaled queries of `x` [..., G, R, C], H = G x R heads."""
        q = self.q(self.query_norm(x))
        return (q * q.shape[-1] ** -0.5).reshape(*q.shape[:-2], self.kv_heads, -1, q.shape[-1])

    def keys_values(self, context: jax.Array) -> KeysValues:
        """Keys and values of `context`, [..., G, C] both."""
        context = self.context_norm(context)
        return self.k(context), self.v(context)

    def out(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """`attended` [..., G, R, C] back to the width of `x`, and the residual."""
        heads = attended.reshape(*attended.shape[:-3], self.heads, -1)
        return RESIDUAL[self.residual] * x + self.o(heads)


class PatchReadsBytes(_Cross):
    def __call__(self, slots_BxPxKxE, h_BxLxE, patch_BxL):
        """Slots attend to the bytes whose patch they are. Empty patches attend to nothing."""
        segments = Segments(patch_BxL, slots_BxPxKxE.shape[1])
        q_BxPxKxGxRxC, (k_BxLxGxC, v_BxLxGxC) = (
            self.queries(slots_BxPxKxE),
            self.keys_values(h_BxLxE),
        )
        self.sow("kept", "kv", (k_BxLxGxC, v_BxLxGxC), reduce_fn=lambda _, new: new)
        q_BxLxKxGxRxC = spread(q_BxPxKxGxRxC, patch_BxL)
        scores = jnp.einsum(
            "blkgrc,blgc->blkgr", q_BxLxKxGxRxC, k_BxLxGxC, preferred_element_type=jnp.float32
        )
        highest = spread(segments.max(jax.lax.stop_gradient(scores)), patch_BxL)
        real_BxL = patch_BxL < slots_BxPxKxE.shape[1]  # padding has no maximum to be held against
        weight_BxLxKxGxR = jnp.exp(jnp.where(real_BxL[..., None, None, None], scores - highest, 0))
        weighted = weight_BxLxKxGxR[..., None] * v_BxLxGxC[:, :, None, :, None].astype(jnp.float32)
        total_BxPxKxGxR = segments.sum(weight_BxLxKxGxR)[..., None]
        attended = segments.sum(weighted) / jnp.where(total_BxPxKxGxR > 0, total_BxPxKxGxR, 1)
        return self.out(slots_BxPxKxE, attended.astype(self.dtype))

    def step(self, slots_BxKxE: jax.Array, kv: KeysValues, seen_BxW: jax.Array) -> jax.Array:
        """The slots of one patch for each row read its bytes: `kv` of `ring`, those that `seen_BxW`
        names.
        """
        q_BxKxGxRxC = self.queries(slots_BxKxE)
        return self.out(slots_BxKxE, ring.read(q_BxKxGxRxC, *kv, seen_BxW))


class ByteReadsPatch(_Cross):
    def __call__(self, h_BxLxE, slots_BxPxKxE, read_BxL):
        """Bytes attend to the K slots of the patch that `read_BxL` names."""
        return self.step(h_BxLxE, *(spread(x, read_BxL) for x in self.keys_values(slots_BxPxKxE)))

    def step(self, h_BxLxE: jax.Array, k_BxLxKxGxC: jax.Array, v_BxLxKxGxC: jax.Array) -> jax.Array:
        """Bytes attend to K slots each, given by their keys and values."""
        scores = jnp.einsum(
            "blgrc,blkgc->blkgr",
            self.queries(h_BxLxE),
            k_BxLxKxGxC,
            preferred_element_type=jnp.float32,
        )
        weights = jax.nn.softmax(scores, axis=2).astype(self.dtype)
        return self.out(h_BxLxE, jnp.einsum("blkgr,blkgc->blgrc", weights, v_BxLxKxGxC))
