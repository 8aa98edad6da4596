"""Forward FLOPs per text byte of a model, from its config alone, in a named convention.

A multiply-add is 2 FLOPs; training is 3 x forward; lookups (embeddings, hash tables) are 0.
Document boundaries are ignored: contexts are full. The entropy model is never inside: ask for it
with its own config.

- "paper": the formulas of the BLT paper (blt.md, section 10): feed-forward of 16 h^2, half of the
  window as
  the mean context, no projections between patches and bytes, 256 bytes in the head, and
  cross-attention, where there is any, at every local layer.
- "exact": every matrix product that the architecture needs: the real feed-forward, grouped keys and
  values,
  true causal and window averages, every projection.
- "executed": every matrix product that the program does, to the unit; `trace.count` and a test hold
  it to that.
  `causes.differences` says where, and why, it departs from the others. Work that is no matrix
  product counts 0 in all conventions.
"""

import dataclasses
import math

from blt_jax.config import Blt, ConfigError, Lm, Stack

CONVENTIONS = ("paper", "exact", "executed")

# What `executed` must know of `nn`, which this layer cannot import; a test holds both to it.
ATTENTION_BLOCK = 128  # positions per block: `nn.attention.BLOCK` and `nn.blockwise.BLOCK`
ATTENTION_SPAN = 5  # key blocks per step: `nn.blockwise.SPAN`
HEAD_LOGITS = 2**25  # most logits of a row at a time: `families.head.LOGITS`
ATTENTIONS = (
    "blockwise",
    "banded",
)  # backends that can be counted, the default of `nn.compute.Compute` first


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """FLOPs by line: forward and per byte, unless whoever made it says otherwise. A plain LM:
    `latent` and `head`.
    """

    encoder: float = 0.0
    pooling: float = 0.0  # encoder cross-attention and its query projection
    latent: float = 0.0  # with the projection into it
    decoder: float = 0.0  # with its cross-attention and the projection out of the latent model
    head: float = 0.0

    @property
    def total(self):
        return sum(dataclasses.astuple(self))

    def as_dict(self):
        return dataclasses.asdict(self) | {"total": self.total}


def per_byte(model, *, patch_size, context_bytes, convention) -> Breakdown:
    """Breakdown of `model`. `patch_size`: bytes per patch, or per token of a token model; unused
    for a byte LM.

    `context_bytes`: bytes per row. "executed" counts a row of that many positions and
    ceil(context_bytes / patch_size) patch slots, or of round(context_bytes / patch_size) tokens.
    Raises ConfigError for an unknown convention or a size that is not positive.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention = {convention!r}: known are {', '.join(CONVENTIONS)}")
    unit = 1.0 if isinstance(model, Lm) and model.unit == "byte" else patch_size
    for name, value in (("patch_size", unit), ("context_bytes", context_bytes)):
        if not value > 0:
            raise ConfigError(f"{name} = {value!r}: must be a positive number of bytes")
    if convention == "executed":
        units = round(
            context_bytes / unit, 9
        )  # so that a patch size of L / P means P slots, not P + 1
        positions = round(units) if getattr(model, "unit", "byte") == "token" else context_bytes
        row = executed_row(model, positions, math.ceil(units))
        return Breakdown(*(flops / context_bytes for flops in dataclasses.astuple(row)))
    count = _Paper() if convention == "paper" else _Exact()
    if isinstance(model, Lm):
        head = count.head(
            model.stack.width, model.vocab if model.unit == "token" else count.byte_vocab
        )
        return Breakdown(
            latent=count.stack(model.stack, context_bytes / unit) / unit, head=head / unit
        )
    return count.blt(model, patch_size, context_bytes)


class _Paper:
    byte_vocab = 256

    def head(self, width, vocab):
        return 2 * width * vocab

    def attention(self, layers, width, context):
        return 4 * layers * width * (context + 1) / 2

    def qkvo(self, layers, width, keys_per_query=1.0):
        return (2 * keys_per_query + 2) * 2 * layers * width**2

    def stack(self, s: Stack, context):
        """Per position. A window counts as a context of its length."""
        forward = 16 * s.layers * s.width**2
        return (
            forward
            + self.qkvo(s.layers, s.width)
            + self.attention(s.layers, s.width, s.window or context)
        )

    def cross(self, layers, width, context, keys_per_query):
        return self.attention(layers, width, context) + self.qkvo(layers, width, keys_per_query)

    def blt(self, m: Blt, p, context):
        pooling = decoder_cross = 0.0
        k, E = m.slots, m.encoder.width
        if m.encoder_cross != "none":
            pooling = self.cross(m.encoder.layers, E, p, p / k) * k / p
        if m.decoder_cross != "none":
            decoder_cross = self.cross(m.decoder.layers, E, k, k / p)
        return Breakdown(
            encoder=self.stack(m.encoder, context),
            pooling=pooling,
            latent=self.stack(m.latent, context / p) / p,
            decoder=self.stack(m.decoder, context) + decoder_cross,
            head=self.head(m.decoder.width, self.byte_vocab),
        )


class _Exact(_Paper):
    byte_vocab = 260

    def stack(self, s: Stack, context):
        window = min(s.window or context, context)
        reach = (
            window * (window + 1) / 2 + (context - window) * window
        ) / context  # mean of min(i + 1, window)
        projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
        return s.layers * (2 * projections + 4 * s.width * reach + 6 * s.width * s.ffn)

    def blt(self, m: Blt, p, context):
        E, D, K = m.encoder.width, m.latent.width, m.slots
        keys = _cross_keys(m)
        pooling = 0.0
        if m.encoder_cross != "none":
            times = _applications(m.encoder_cross, m.encoder)
            pooling = 2 * K * E * E / p + times * (4 * E * keys + 4 * K * E + 4 * K * E * E / p)
        into = 2 * m.slots_width * D / p if m.slots_width != D else 0.0
        slots = K if m.decoder_cross != "none" else 1
        cross = 0.0
        if m.decoder_cross != "none":
            times = _applications(m.decoder_cross, m.decoder)
            cross = times * (4 * E * E + 4 * K * E + 4 * K * E * keys / p)
        return Breakdown(
            encoder=self.stack(m.encoder, context),
            pooling=pooling,
            latent=self.stack(m.latent, context / p) / p + into,
            decoder=self.stack(m.decoder, context) + cross + 2 * D * slots * E / p,
            head=self.head(E, self.byte_vocab),
        )


def _applications(where, s: Stack):
    return s.layers if where == "all" else 1


def _cross_keys(m: Blt):
    """Width of the cross-attentions' keys, and of their values."""
    return m.encoder.width * m.cross_kv_heads // m.cross_heads


def executed_row(
    model, positions, slots=0, *, remat="none", training=False, attention=ATTENTIONS[0]
) -> Breakdown:
    """Matrix-product FLOPs, whole numbers, of one row in `models.apply` with `Compute(remat=...,
    attention=...)`.

    `positions`: bytes or tokens per row, L. `slots`: patch slots per row, P; unused for an Lm.

    `training`: with the backward pass. Both operands of every product need a gradient, so it costs
    two more; but blockwise attention makes its scores again, five products for two. remat "full"
    then also repeats the forward pass of every scanned layer, except its last product (`down` of
    the feed-forward), whose result no gradient needs. Scanned are all layers but the encoder's
    under encoder_cross "all"; only under decoder_cross "all" is a cross-attention, and all of it,
    inside a scanned layer.

    Raises ConfigError for sizes that are not whole and positive, and for an unknown `remat` or
    `attention`: "splash" is a kernel whose work is not counted here.
    """
    sizes = {"positions": positions} | ({"slots": slots} if isinstance(model, Blt) else {})
    for name, value in sizes.items():
        if not (value >= 1 and value % 1 == 0):
            raise ConfigError(f"{name} = {value!r}: a row needs a whole number of them, at least 1")
    for name, value, known in (
        ("remat", remat, ("none", "full")),
        ("attention", attention, ATTENTIONS),
    ):
        if value not in known:
            raise ConfigError(f"{name} = {value!r}: can count {', '.join(known)}")
    row = _Executed(int(positions), int(slots), training, training and remat == "full", attention)
    return row.lm(model) if isinstance(model, Lm) else row.blt(model)


@dataclasses.dataclass(frozen=True)
class _Executed:
    """Whole rows: each method gives FLOPs of a row, and names the code whose products it counts."""

    L: int  # positions
    P: int  # patch slots
    training: bool
    recompute: bool  # scanned layers run once more
    backend: str  # of attention

    @property
    def times(self):
        """Products per product of the forward pass, where the backward pass is the usual one."""
        return 3 if self.training else 1

    def lm(self, m: Lm):
        return Breakdown(0, 0, self.stack(m.stack, self.L), 0, self.head(m.stack.width, m.vocab))

    def blt(self, m: Blt):
        into = 2 * self.P * m.slots_width * m.latent.width if m.slots_width != m.latent.width else 0
        slots = m.slots if m.decoder_cross != "none" else 1
        out = 2 * self.P * m.latent.width * slots * m.encoder.width
        return Breakdown(
            encoder=self.stack(m.encoder, self.L, scanned=m.encoder_cross != "all"),
            pooling=self.pooling(m),
            latent=self.stack(m.latent, self.P) + self.times * into,
            decoder=self.stack(m.decoder, self.L) + self.decoder_cross(m) + self.times * out,
            head=self.head(m.decoder.width, m.vocab),
        )

    def stack(self, s: Stack, length, scanned=True):
        """`nn.block.Layers` over `length` positions, or as many single Blocks."""
        down = 2 * length * s.ffn * s.width
        dense = self.projections(s, length) + 3 * down
        scores = self.scores(s, length)
        layer = dense + 2 * scores  # scores, and the values that they weigh
        again = 1 if self.backend == "blockwise" else 0  # its backward pass makes the scores again
        backward = 2 * layer + again * scores if self.training else 0
        return s.layers * (layer + backward + (layer - down if self.recompute and scanned else 0))

    def projections(self, s: Stack, length):
        """q, k, v, o of `nn.block.Block`."""
        return 2 * length * s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)

    def scores(self, s: Stack, length):
        """Queries times keys of `nn.attention.attend`, those of masked pairs included."""
        return (
            2
            * s.width
            * (self.blockwise if self.backend == "blockwise" else self.banded)(s.window, length)
        )

    def blockwise(self, window, length):
        """Query-key pairs of `nn.blockwise.attend`: each query block meets whole spans of key
        blocks.
        """
        block = min(ATTENTION_BLOCK, -(-length // 8) * 8)
        blocks = -(-length // block)
        most = min(-(-(window - 1) // block) + 1, blocks) if 0 < window < length else blocks
        span = -(-most // -(-most // ATTENTION_SPAN))
        return block**2 * span * sum(-(-min(i + 1, most) // span) for i in range(blocks))

    def banded(self, window, length):
        """Query-key pairs of `nn.attention._banded`; without a window all, as in its `_attend`."""
        if not 0 < window < length:
            return length**2
        block = min(ATTENTION_BLOCK, window)
        blocks, back = -(-length // block), -(-(window - 1) // block)
        return blocks * block * (1 + back) * block

    def pooling(self, m: Blt):
        """`query` of `families.blt.model.Encoder` and the `PatchReadsBytes`, which no scan holds."""
        if m.encoder_cross == "none":
            return 0
        query = 2 * self.P * m.encoder.width * m.slots * m.encoder.width
        return self.times * (
            query + _applications(m.encoder_cross, m.encoder) * self.patch_reads_bytes(m)
        )

    def patch_reads_bytes(self, m: Blt):
        E, K = m.encoder.width, m.slots
        queries_and_output, keys_and_values = (
            4 * self.P * K * E * E,
            4 * self.L * E * _cross_keys(m),
        )
        scores = 2 * self.L * K * E  # the weighted values are a segment sum of elementwise products
        return queries_and_output + keys_and_values + scores

    def decoder_cross(self, m: Blt):
        """The `ByteReadsPatch` of `families.blt.model.Decoder`."""
        if m.decoder_cross == "none":
            return 0
        times = self.times + (1 if self.recompute and m.decoder_cross == "all" else 0)
        return times * _applications(m.decoder_cross, m.decoder) * self.byte_reads_patch(m)

    def byte_reads_patch(self, m: Blt):
        E, K = m.encoder.width, m.slots
        queries_and_output, keys_and_values = (
            4 * self.L * E * E,
            4 * self.P * K * E * _cross_keys(m),
        )
        scores, values = 2 * self.L * K * E, 2 * self.L * K * E
        return queries_and_output + keys_and_values + scores + values

    def head(self, width, vocab):
        """`head`, or `nn.block.tied_head`; where it is large, training takes it in parts and twice:
        `models.losses`.
        """
        once = 2 * width * vocab
        parts = -(-self.L * vocab // HEAD_LOGITS)
        if not self.training or parts == 1:
            return self.times * self.L * once
        part = -(-self.L // parts)
        return 4 * -(-self.L // part) * part * once


def training(forward):
    """FLOPs of forward and backward: 3 x forward. Nothing is recomputed; `executed_row` counts that
    too.
    """
    return 3 * forward


def parameters(model):
    """Parameters by part, as `network.init` makes them; `non_embedding` leaves out the embedding and
    hash tables.
    """
    if isinstance(model, Lm):
        width = model.stack.width
        parts = {
            "embedding": model.vocab * width,
            "hash_tables": 0,
            "encoder": 0,
            "pooling": 0,
            "latent": _stack_parameters(model.stack) + width,
            "decoder": 0,
            "head": 0 if model.tied else width * model.vocab,
        }
    else:
        E, D = model.encoder.width, model.latent.width
        cross = 2 * E * E + 2 * E * _cross_keys(model) + 2 * E
        pools = (
            _applications(model.encoder_cross, model.encoder)
            if model.encoder_cross != "none"
            else 0
        )
        reads = (
            _applications(model.decoder_cross, model.decoder)
            if model.decoder_cross != "none"
            else 0
        )
        parts = {
            "embedding": model.vocab * E,
            "hash_tables": model.hash_tables * model.hash_rows * E,
            "encoder": _stack_parameters(model.encoder),
            "pooling": pools * cross + (model.slots * E * E if pools else 0),
            "latent": _stack_parameters(model.latent)
            + (model.slots_width * D if model.slots_width != D else 0),
            "decoder": _stack_parameters(model.decoder)
            + reads * cross
            + D * E * (model.slots if reads else 1)
            + E,
            "head": 0 if model.tied else E * model.vocab,
        }
    total = sum(parts.values())
    return parts | {
        "total": total,
        "non_embedding": total - parts["embedding"] - parts["hash_tables"],
    }


def _stack_parameters(s: Stack):
    projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
    return s.layers * (projections + 3 * s.width * s.ffn + 2 * s.width)
