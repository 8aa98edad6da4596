"""FLOPs of the matrix products that a program does for one row, to the unit.

What it must know of `nn` and `families`, which lie above, it repeats; a test holds both together.
"""

import dataclasses

from blt_jax.config import Stack

ATTENTION_BLOCK = 128  # positions per block: `nn.attention.BLOCK` and `nn.blockwise.BLOCK`
ATTENTION_SPAN = 5  # key blocks per step: `nn.blockwise.SPAN`
HEAD_LOGITS = 2**25  # most logits of a row at a time: `families.head.LOGITS`
# Backends that can be counted, the default of `nn.compute.Compute` first.
ATTENTIONS = ("blockwise", "banded")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a program: each method gives its FLOPs, and names the code whose products it counts.

    A family's own products ask it for `times`, `recompute`, `L` and `P`.
    """

    L: int  # positions
    P: int  # patch slots
    training: bool  # with the backward pass
    recompute: bool  # scanned layers run once more
    backend: str  # of attention, one of ATTENTIONS

    @property
    def times(self) -> int:
        """Products per product of the forward pass, where the backward pass is the usual one."""
        return 3 if self.training else 1

    def stack(self, s: Stack, length: int, scanned: bool = True) -> int:
        """`nn.block.Layers` over `length` positions, or as many single Blocks."""
        down = 2 * length * s.ffn * s.width
        dense = self.projections(s, length) + 3 * down
        scores = 2 * s.width * self.pairs(s.window, length)
        layer = dense + 2 * scores  # scores, and the values that they weigh
        again = 1 if self.backend == "blockwise" else 0  # its backward pass makes the scores again
        backward = 2 * layer + again * scores if self.training else 0
        return s.layers * (layer + backward + (layer - down if self.recompute and scanned else 0))

    def projections(self, s: Stack, length: int) -> int:
        """q, k, v, o of `nn.block.Block`."""
        return 2 * length * s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)

    def pairs(self, window: int, length: int) -> int:
        """Query-key pairs of `nn.attention.attend`, masked ones included."""
        return (_blockwise if self.backend == "blockwise" else _banded)(window, length)

    def head(self, width: int, vocab: int) -> int:
        """`families.head.losses`; where it is large, training takes it in parts and twice."""
        once = 2 * width * vocab
        parts = -(-self.L * vocab // HEAD_LOGITS)
        if not self.training or parts == 1:
            return self.times * self.L * once
        part = -(-self.L // parts)
        return 4 * -(-self.L // part) * part * once


def _blockwise(window, length):
    """Pairs of `nn.blockwise.attend`: each query block meets whole spans of key blocks."""
    block = min(ATTENTION_BLOCK, -(-length // 8) * 8)
    blocks = -(-length // block)
    most = min(-(-(window - 1) // block) + 1, blocks) if 0 < window < length else blocks
    span = -(-most // -(-most // ATTENTION_SPAN))
    return block**2 * span * sum(-(-min(i + 1, most) // span) for i in range(blocks))


def _banded(window, length):
    """Pairs of `nn.attention._banded`; without a window all, as in its `_attend`."""
    if not 0 < window < length:
        return length**2
    block = min(ATTENTION_BLOCK, window)
    blocks, back = -(-length // block), -(-(window - 1) // block)
    return blocks * block * (1 + back) * block
