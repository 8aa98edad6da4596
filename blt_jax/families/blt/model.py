"""Byte Latent Transformer: bytes -> local encoder -> patches -> latent transformer -> local decoder
-> logits.

One pure function of (params, batch, config): patching arrives as arrays (`patch_BxL`, `read_BxL`,
`patch_segment_BxP`; see `patching/row_layout.py`), shapes are static, empty patch slots and padding
bytes are harmless. Paper: arXiv 2412.09871, section 3; where it and the published code differ, the
config decides.
"""

import jax
from flax import linen as nn

from blt_jax.batch import Batch
from blt_jax.families.blt.config import Blt
from blt_jax.nn.block import RESIDUAL, Block, Layers, Linear, scan_layers, tied_head, untied_head
from blt_jax.nn.compute import Compute
from blt_jax.nn.constraints import constrain
from blt_jax.nn.cross_attention import ByteReadsPatch, PatchReadsBytes, Segments, spread
from blt_jax.nn.embedding import read, table
from blt_jax.nn.hash_embedding import HashEmbedding
from blt_jax.nn.norm import RMSNorm


def hash_embedding(c: Blt, compute: Compute, name: str | None = None) -> HashEmbedding:
    """The module that sums the rows of a byte's n-grams."""
    return HashEmbedding(
        c.hash_sizes,
        c.hash_functions,
        c.hash_rows,
        c.encoder.width,
        c.hash_short,
        c.hash_order,
        c.hash_scope,
        compute,
        name=name,
    )


def patch_reads_bytes(c: Blt, compute: Compute, name: str | None = None) -> PatchReadsBytes:
    """A cross-attention of the encoder."""
    shape = c.encoder.width, c.cross_heads, c.cross_kv_heads
    return PatchReadsBytes(*shape, c.cross_residual, c.encoder.norm_eps, compute.dtype, name=name)


def byte_reads_patch(c: Blt, compute: Compute, name: str | None = None) -> ByteReadsPatch:
    """A cross-attention of the decoder."""
    shape = c.encoder.width, c.cross_heads, c.cross_kv_heads
    return ByteReadsPatch(*shape, c.cross_residual, c.decoder.norm_eps, compute.dtype, name=name)


class Encoder(nn.Module):
    """Byte embeddings, local layers, pooling into patches (paper, section 3.2)."""

    config: Blt
    compute: Compute

    @nn.compact
    def __call__(self, batch):
        """Returns byte states [B, L, E], patch states [B, P, slots_width] and the byte embedding
        [V, E].
        """
        c, stack, dtype = self.config, self.config.encoder, self.compute.dtype
        ids_BxL, segment_BxL, patch_BxL = batch["ids_BxL"], batch["segment_BxL"], batch["patch_BxL"]
        patches = batch["patch_segment_BxP"].shape[1]
        embedding = table(self, c.vocab, stack.width)
        embedded = read(embedding, ids_BxL[None], self.compute)
        if c.hash_tables:
            hashed = hash_embedding(c, self.compute, name="hash")
            embedded += hashed(ids_BxL, segment_BxL)
            if c.hash_norm:
                embedded /= c.hash_tables + 1
        embedded = constrain(embedded, *RESIDUAL)

        def pool(x_BxLxE):
            pooled_BxPxE = Segments(patch_BxL, patches).max(x_BxLxE)
            self.sow("kept", "pooled", pooled_BxPxE, reduce_fn=lambda _, new: new)
            return pooled_BxPxE

        query = Linear((c.slots * stack.width,), ("embed", "slots"), dtype=dtype, name="query")
        cross = lambda name: patch_reads_bytes(c, self.compute, name)
        to_slots = lambda x_BxPxE: query(x_BxPxE).reshape(*x_BxPxE.shape[:2], c.slots, stack.width)

        # "all": patches read the bytes after every layer, pooled once after the first.
        if c.encoder_cross == "all":
            h_BxLxE, slots = embedded, None
            for layer in range(stack.layers):
                h_BxLxE = Block(stack, self.compute, name=f"layer_{layer}")(h_BxLxE, segment_BxL)
                if slots is None:
                    slots = to_slots(pool(h_BxLxE if c.pool_from == "states" else embedded))
                slots = cross(f"cross_{layer}")(slots, h_BxLxE, patch_BxL)
        else:
            h_BxLxE = Layers(stack, self.compute, name="stack")(embedded, segment_BxL)
            pooled = pool(h_BxLxE if c.pool_from == "states" else embedded)
            if c.encoder_cross == "none":
                return h_BxLxE, pooled, embedding
            slots = cross("cross")(to_slots(pooled), h_BxLxE, patch_BxL)
        return h_BxLxE, slots.reshape(*slots.shape[:2], -1), embedding


class _CrossBlock(nn.Module):
    """A decoder layer: bytes read their patch, then a block."""

    config: Blt
    compute: Compute

    @nn.compact
    def __call__(self, h_BxLxE, slots_BxPxKxE, read_BxL, segment_BxL):
        c = self.config
        cross = byte_reads_patch(c, self.compute, "cross")
        h_BxLxE = cross(h_BxLxE, slots_BxPxKxE, read_BxL)
        return Block(c.decoder, self.compute, name="block")(h_BxLxE, segment_BxL), None


class Decoder(nn.Module):
    """Byte states and latent patch states -> next-byte logits (paper, section 3.3)."""

    config: Blt
    compute: Compute

    @nn.compact
    def __call__(self, h_BxLxE, latent_BxPxD, embedding_VxE, batch, head=True):
        c, stack, dtype = self.config, self.config.decoder, self.compute.dtype
        segment_BxL, read_BxL = batch["segment_BxL"], batch["read_BxL"]
        features = stack.width * (c.slots if c.decoder_cross != "none" else 1)
        project = Linear((features,), ("embed", "slots"), dtype=dtype, name="from_latent")
        slots = project(latent_BxPxD).reshape(*latent_BxPxD.shape[:2], -1, stack.width)
        slots = constrain(slots, "batch", "length", "slots_read", "residual")
        if c.decoder_cross == "all":
            layers = scan_layers(_CrossBlock, stack.layers, self.compute.remat)
            h_BxLxE, _ = layers(c, self.compute, name="layers")(
                h_BxLxE, slots, read_BxL, segment_BxL
            )
        else:
            if c.decoder_cross == "first":
                cross = byte_reads_patch(c, self.compute, "cross")
                h_BxLxE = cross(h_BxLxE, slots, read_BxL)
            else:
                h_BxLxE += spread(slots[:, :, 0], read_BxL)
            h_BxLxE = Layers(stack, self.compute, name="stack")(h_BxLxE, segment_BxL)
        h_BxLxE = RMSNorm(stack.norm_eps, name="norm")(h_BxLxE)
        if not head:
            return h_BxLxE
        if c.tied:
            return tied_head(h_BxLxE, embedding_VxE, dtype)
        return untied_head(c.vocab, dtype, name="head")(h_BxLxE)


class BltModel(nn.Module):
    config: Blt
    compute: Compute = Compute()

    def setup(self) -> None:
        c = self.config
        self.encoder = Encoder(c, self.compute)
        if c.slots_width != c.latent.width:
            self.to_latent = Linear((c.latent.width,), ("slots", "embed"), dtype=self.compute.dtype)
        self.latent = Layers(c.latent, self.compute)
        self.decoder = Decoder(c, self.compute)

    def __call__(self, batch, head=True):
        """Returns next-byte logits [B, L, 260], float32. Without `head`: the states [B, L, E] that
        the head reads.
        """
        return self.states(batch, head)["logits_BxLxV"]

    def states(self, batch: Batch, head: bool = True) -> dict[str, jax.Array]:
        """All that the parity fixtures name: byte states, patch states, latent states, logits."""
        h_BxLxE, patch_BxPxKE, embedding_VxE = self.encoder(batch)
        x_BxPxD = patch_BxPxKE
        if self.config.slots_width != self.config.latent.width:
            x_BxPxD = self.to_latent(patch_BxPxKE)
        x_BxPxD = constrain(x_BxPxD, *RESIDUAL)
        latent_BxPxD = self.latent(x_BxPxD, batch["patch_segment_BxP"])
        return {
            "encoder_BxLxE": h_BxLxE,
            "patches_BxPxKE": patch_BxPxKE,
            "latent_BxPxD": latent_BxPxD,
            "logits_BxLxV": self.decoder(h_BxLxE, latent_BxPxD, embedding_VxE, batch, head),
        }
