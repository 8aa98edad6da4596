"""Llama block: x + Attention(RMSNorm x), then x + SwiGLU(RMSNorm x); and a scanned stack of
them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from blt_jax.config import Stack
from blt_jax.nn import ring, rope
from blt_jax.nn.attention import attend
from blt_jax.nn.compute import Compute
from blt_jax.nn.constraints import constrain
from blt_jax.nn.norm import RMSNorm
from blt_jax.nn.ring import KeysValues


def init_normal(std: float) -> nn.initializers.Initializer:
    """Normal cut at 3 sigma: every weight of BLT (docs/blt.md, section 7)."""
    return nn.initializers.truncated_normal(std, lower=-3.0, upper=3.0)


# axes of the states that run through a stack: whole rows, whole widths
RESIDUAL = ("batch", "length", "residual")


class Linear(nn.Module):
    """x @ kernel over the last `len(axes_in)` axes; no bias. Kernel shape = inputs + features,
    float32.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]  # logical axes of the kernel, inputs first
    std: float | None = None  # None: (number of inputs)^-1/2
    dtype: jnp.dtype = jnp.float32
    out_dtype: jnp.dtype | None = None  # accumulate and return in this dtype; None: dtype

    @nn.compact
    def __call__(self, x):
        count = len(self.axes) - len(self.features)
        inputs = x.shape[-count:]
        fan_in = math.prod(inputs)
        init = nn.with_logical_partitioning(init_normal(self.std or fan_in**-0.5), self.axes)
        kernel = self.param("kernel", init, (*inputs, *self.features))
        # Matrices, not arrays of more axes: for the gradient of those XLA transposes activations in
        # memory.
        rows = x.astype(self.dtype).reshape(-1, fan_in)
        matrix = kernel.astype(self.dtype).reshape(fan_in, -1)
        out = jnp.dot(rows, matrix, preferred_element_type=self.out_dtype or self.dtype)
        return out.reshape(*x.shape[:-count], *self.features)


def untied_head(vocab: int, dtype: jnp.dtype, name: str | None = None) -> Linear:
    """The module from states [B, L, D] to logits [B, L, V], float32."""
    return Linear((vocab,), ("embed", "vocab"), dtype=dtype, out_dtype=jnp.float32, name=name)


def tied_head(x_BxLxD: jax.Array, embedding_VxD: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Logits [B, L, V], float32, by the embedding itself."""
    return jnp.einsum(
        "bld,vd->blv",
        x_BxLxD.astype(dtype),
        embedding_VxD.astype(dtype),
        preferred_element_type=jnp.float32,
    )


class Block(nn.Module):
    stack: Stack
    compute: Compute = Compute()

    def setup(self) -> None:
        s = self.stack
        linear = lambda features, *axes: Linear(features, axes, dtype=self.compute.dtype)
        self.attention_norm = RMSNorm(s.norm_eps)
        self.q = linear((s.heads, s.head_width), "embed", "heads", "head_width")
        self.k = linear((s.kv_heads, s.head_width), "embed", "kv_heads", "head_width")
        self.v = linear((s.kv_heads, s.head_width), "embed", "kv_heads", "head_width")
        self.o = linear((s.width,), "heads", "head_width", "embed")
        self.ffn_norm = RMSNorm(s.norm_eps)
        self.gate = linear((s.ffn,), "embed", "mlp")
        self.up = linear((s.ffn,), "embed", "mlp")
        self.down = linear((s.width,), "mlp", "embed")

    def __call__(self, x_BxLxD, segment_BxL):
        q, k, v = self._projected(x_BxLxD)
        # What decoding starts from (`Model.prompt`).
        self.sow("kept", "kv", (k, v), reduce_fn=lambda _, new: new)
        return self._rest(
            x_BxLxD, attend(q, k, v, segment_BxL, self.stack.window, self.compute.attention)
        )

    def step(
        self,
        x_Bx1xD: jax.Array,
        position_B: jax.Array,
        kv: KeysValues,
        slot: jax.Array,
        seen_BxW: jax.Array,
    ) -> tuple[jax.Array, KeysValues]:
        """One position: (its state, (k, v) of `ring` with it). `seen_BxW`: slots that it may read,
        its own included.
        """
        q, k, v = self._projected(x_Bx1xD, position_B[:, None])
        kv = ring.write(kv, (k, v), slot)
        return self._rest(x_Bx1xD, ring.attend(q, *kv, seen_BxW)), kv

    def _projected(self, x_BxLxD, position_BxL=None):
        """Queries, keys and values [B, L, ., C], rotated."""
        s, y = self.stack, self.attention_norm(x_BxLxD)
        lay = lambda made, axis: constrain(made, "batch", "length", axis, "head_width")
        q, k, v = lay(self.q(y), "heads"), lay(self.k(y), "kv_heads"), lay(self.v(y), "kv_heads")
        q, k = (rope.rotate(x, s.rope_theta, s.rope_scaling, position_BxL) for x in (q, k))
        return q, k, v

    def _rest(self, x_BxLxD, attended_BxLxHxC):
        x_BxLxD = constrain(x_BxLxD + self.o(attended_BxLxHxC), *RESIDUAL)
        y = self.ffn_norm(x_BxLxD)
        hidden_BxLxF = constrain(nn.silu(self.gate(y)) * self.up(y), "batch", "length", "mlp")
        return constrain(x_BxLxD + self.down(hidden_BxLxF), *RESIDUAL)


def scan_layers(layer: type[nn.Module], layers: int, remat: str) -> Any:
    """`layer` (a Module class whose call is (carry, *broadcast) -> (carry, None)) repeated `layers`
    times.

    Parameters, and what layers keep for decoding, get a leading axis N ("layers"). remat "full"
    recomputes a layer in the backward pass.
    """
    if remat == "full":
        layer = nn.remat(layer, prevent_cse=False)
    return nn.scan(
        layer,
        variable_axes={"params": 0, "kept": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


class _ScannedBlock(Block):
    def __call__(self, x_BxLxD, segment_BxL):
        return super().__call__(x_BxLxD, segment_BxL), None


class Layers(nn.Module):
    """`stack.layers` blocks under one scan. Identity for 0 layers."""

    stack: Stack
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, x_BxLxD, segment_BxL):
        if not self.stack.layers:
            return x_BxLxD
        layers = scan_layers(_ScannedBlock, self.stack.layers, self.compute.remat)
        return layers(self.stack, self.compute, name="layers")(x_BxLxD, segment_BxL)[0]
