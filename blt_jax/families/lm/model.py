"""Causal LM over bytes or BPE tokens: the token baseline, the flat byte LM and the entropy
model.
"""

from flax import linen as nn

from blt_jax.families.lm.config import Lm
from blt_jax.nn.block import RESIDUAL, Layers, tied_head, untied_head
from blt_jax.nn.compute import Compute
from blt_jax.nn.constraints import constrain
from blt_jax.nn.embedding import read, table
from blt_jax.nn.norm import RMSNorm


class LmModel(nn.Module):
    """ids -> embedding -> blocks -> RMSNorm -> head. Untied in every BLT experiment."""

    config: Lm
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, batch, head=True):
        """Reads ids_BxL and segment_BxL (int32); returns next-unit logits [B, L, V], float32.

        Without `head`: the states [B, L, D] that the head reads.
        """
        c, stack = self.config, self.config.stack
        embedding = table(self, c.vocab, stack.width)
        x_BxLxD = constrain(read(embedding, batch["ids_BxL"][None], self.compute), *RESIDUAL)
        x_BxLxD = Layers(stack, self.compute, name="stack")(x_BxLxD, batch["segment_BxL"])
        x_BxLxD = RMSNorm(stack.norm_eps, name="norm")(x_BxLxD)
        if not head:
            return x_BxLxD
        if c.tied:
            return tied_head(x_BxLxD, embedding, self.compute.dtype)
        return untied_head(c.vocab, self.compute.dtype, name="head")(x_BxLxD)
