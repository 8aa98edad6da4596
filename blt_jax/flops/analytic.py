"""Forward FLOPs per text byte of a model, from its config alone, in a named convention.

A multiply-add is 2 FLOPs; training is 3 x forward; lookups (embeddings, hash tables) are 0. Document
boundaries are ignored: contexts are full. The entropy model is never inside: ask for it with its own config.

- "paper": the formulas of the BLT paper (blt.md, section 10): feed-forward of 16 h^2, half of the window as
  the mean context, no projections between patches and bytes, 256 bytes in the head, and cross-attention, where
  there is any, at every local layer.
- "exact": every matrix product that the architecture needs: the real feed-forward, grouped keys and values,
  true causal and window averages, every projection.
"""

import dataclasses

from blt_jax.config import Blt, ConfigError, Lm, Stack

CONVENTIONS = ("paper", "exact")


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """Forward FLOPs per byte. A plain LM is all `latent` and `head`."""

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
    """Breakdown of `model`. `patch_size`: bytes per patch, or per token of a token model; unused for a byte LM.

    `context_bytes`: bytes per row. Raises ConfigError for an unknown convention or a size that is not positive.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention = {convention!r}: known are {', '.join(CONVENTIONS)}")
    unit = 1.0 if isinstance(model, Lm) and model.unit == "byte" else patch_size
    for name, value in (("patch_size", unit), ("context_bytes", context_bytes)):
        if not value > 0:
            raise ConfigError(f"{name} = {value!r}: must be a positive number of bytes")
    count = _Paper() if convention == "paper" else _Exact()
    if isinstance(model, Lm):
        head = count.head(model.stack.width, model.vocab if model.unit == "token" else count.byte_vocab)
        return Breakdown(latent=count.stack(model.stack, context_bytes / unit) / unit, head=head / unit)
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
        return forward + self.qkvo(s.layers, s.width) + self.attention(s.layers, s.width, s.window or context)

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
        reach = (window * (window + 1) / 2 + (context - window) * window) / context  # mean of min(i + 1, window)
        projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
        return s.layers * (2 * projections + 4 * s.width * reach + 6 * s.width * s.ffn)

    def blt(self, m: Blt, p, context):
        E, D, K = m.encoder.width, m.latent.width, m.slots
        keys = E * m.cross_kv_heads // m.cross_heads  # width of the cross-attentions' keys, and of their values
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


def training(forward):
    """FLOPs of forward and backward: 3 x forward."""
    return 3 * forward


def parameters(model):
    """Parameters by part, as `models.init` makes them; `non_embedding` leaves out the embedding and hash tables."""
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
        cross = 2 * E * E + 2 * E * (E * model.cross_kv_heads // model.cross_heads) + 2 * E
        pools = _applications(model.encoder_cross, model.encoder) if model.encoder_cross != "none" else 0
        reads = _applications(model.decoder_cross, model.decoder) if model.decoder_cross != "none" else 0
        parts = {
            "embedding": model.vocab * E,
            "hash_tables": model.hash_tables * model.hash_rows * E,
            "encoder": _stack_parameters(model.encoder),
            "pooling": pools * cross + (model.slots * E * E if pools else 0),
            "latent": _stack_parameters(model.latent) + (model.slots_width * D if model.slots_width != D else 0),
            "decoder": _stack_parameters(model.decoder) + reads * cross + D * E * (model.slots if reads else 1) + E,
            "head": 0 if model.tied else E * model.vocab,
        }
    total = sum(parts.values())
    return parts | {"total": total, "non_embedding": total - parts["embedding"] - parts["hash_tables"]}


def _stack_parameters(s: Stack):
    projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
    return s.layers * (projections + 3 * s.width * s.ffn + 2 * s.width)
