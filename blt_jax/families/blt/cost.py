"""What a BLT costs outside its stacks: pooling, cross-attention, projections. No jax.

`pooling` is the encoder's query projection with the patches' reading of bytes; `latent` has the
projection into the latent model, `decoder` the bytes' reading of patches and the projection out.
Paper: arXiv 2412.09871, section 3 and the appendix on FLOPs; docs/blt.md, section 10.
"""

from collections.abc import Iterator

from blt_jax.config import Stack
from blt_jax.families.blt.config import Blt
from blt_jax.flops.executed import Row as ExecutedRow
from blt_jax.flops.formulas import FORMULAS, stack_parameters
from blt_jax.flops.memory import Row as MemoryRow

FLOAT32 = 4  # bytes


def applications(where: str, s: Stack) -> int:
    """How many layers of a local model have a cross-attention."""
    return {"none": 0, "all": s.layers}.get(where, 1)


def cross_keys(m: Blt) -> int:
    """Width of the cross-attentions' keys, and of their values."""
    return m.encoder.width * m.cross_kv_heads // m.cross_heads


def _slots_read(m) -> int:
    """Slots of a patch that bytes read."""
    return m.slots if m.decoder_cross != "none" else 1


def parameters(m: Blt) -> dict[str, int]:
    """Parameters by part, as `model.BltModel` makes them."""
    E, D = m.encoder.width, m.latent.width
    cross = 2 * E * E + 2 * E * cross_keys(m) + 2 * E
    pools, reads = (
        applications(m.encoder_cross, m.encoder),
        applications(m.decoder_cross, m.decoder),
    )
    into = m.slots_width * D if m.slots_width != D else 0
    return {
        "embedding": m.vocab * E,
        "hash_tables": m.hash_tables * m.hash_rows * E,
        "encoder": stack_parameters(m.encoder),
        "pooling": pools * cross + (m.slots * E * E if pools else 0),
        "latent": stack_parameters(m.latent) + into,
        "decoder": stack_parameters(m.decoder) + reads * cross + D * E * _slots_read(m) + E,
        "head": 0 if m.tied else E * m.vocab,
    }


# ---------------------------------------------------------------- per byte


def other_flops(m: Blt, convention: str, p: float) -> list[tuple[str, float]]:
    """(line, FLOPs per byte) at `p` bytes per patch."""
    return (_paper if convention == "paper" else _exact)(m, p)


def _paper(m, p):
    count, E, K = FORMULAS["paper"], m.encoder.width, m.slots

    def cross(layers, context, keys_per_query):
        attention = count.attention(layers, E, context)
        return attention + count.qkvo(layers, E, keys_per_query)

    if m.encoder_cross != "none":
        yield "pooling", cross(m.encoder.layers, p, p / K) * K / p
    if m.decoder_cross != "none":
        yield "decoder", cross(m.decoder.layers, K, K / p)


def _exact(m, p):
    E, D, K, keys = m.encoder.width, m.latent.width, m.slots, cross_keys(m)
    if m.encoder_cross != "none":
        times = applications(m.encoder_cross, m.encoder)
        each = 4 * E * keys + 4 * K * E + 4 * K * E * E / p
        yield "pooling", 2 * K * E * E / p + times * each
    if m.slots_width != D:
        yield "latent", 2 * m.slots_width * D / p
    if m.decoder_cross != "none":
        times = applications(m.decoder_cross, m.decoder)
        yield "decoder", times * (4 * E * E + 4 * K * E + 4 * K * E * keys / p)
    yield "decoder", 2 * D * _slots_read(m) * E / p


# ---------------------------------------------------------------- of a program's row


def other_executed(m: Blt, row: ExecutedRow) -> Iterator[tuple[str, int]]:
    """(line, FLOPs) of a `flops.executed.Row`. Only under decoder_cross "all" is a cross-attention,
    and all of it, inside a scanned layer, which `remat` runs again.
    """
    E, D, K = m.encoder.width, m.latent.width, m.slots
    if m.encoder_cross != "none":  # `query` of `model.Encoder` and the `PatchReadsBytes`
        query = 2 * row.P * E * K * E
        times = applications(m.encoder_cross, m.encoder)
        yield "pooling", row.times * (query + times * _patch_reads_bytes(m, row))
    if m.slots_width != D:
        yield "latent", row.times * 2 * row.P * m.slots_width * D
    if m.decoder_cross != "none":  # the `ByteReadsPatch` of `model.Decoder`
        times = row.times + (1 if row.recompute and m.decoder_cross == "all" else 0)
        layers = applications(m.decoder_cross, m.decoder)
        yield "decoder", times * layers * _byte_reads_patch(m, row)
    yield "decoder", row.times * 2 * row.P * D * _slots_read(m) * E


def _patch_reads_bytes(m, row):
    E, K = m.encoder.width, m.slots
    queries_and_output, keys_and_values = 4 * row.P * K * E * E, 4 * row.L * E * cross_keys(m)
    scores = 2 * row.L * K * E  # the weighted values are a segment sum of elementwise products
    return queries_and_output + keys_and_values + scores


def _byte_reads_patch(m, row):
    E, K = m.encoder.width, m.slots
    queries_and_output, keys_and_values = 4 * row.L * E * E, 4 * row.P * K * E * cross_keys(m)
    scores, values = 2 * row.L * K * E, 2 * row.L * K * E
    return queries_and_output + keys_and_values + scores + values


# ---------------------------------------------------------------- why conventions differ


def differences(m: Blt, between: str, p: float) -> Iterator[tuple[str, str, float]]:
    """(cause of `flops.differences`, line, FLOPs per byte): from "paper" to "exact" (`between` =
    "paper"), or from "exact" to "executed", forward.
    """
    return (_from_paper if between == "paper" else _to_executed)(m, p)


def _to_executed(m, p):
    if m.encoder_cross != "none":
        times = applications(m.encoder_cross, m.encoder)
        yield "elementwise", "pooling", -2 * times * m.slots * m.encoder.width


def _from_paper(m, p):
    E, D, K = m.encoder.width, m.latent.width, m.slots
    fewer = cross_keys(m) - E
    per_layer = 4 * E * E + 4 * K * E * E / p
    if m.encoder_cross != "none":
        times = applications(m.encoder_cross, m.encoder)
        paper_reach = 2 * E * K * (p + 1) / p
        yield "cross layers", "pooling", (times - m.encoder.layers) * (paper_reach + per_layer)
        yield "cross reach", "pooling", times * (4 * K * E - paper_reach)
        yield "grouped keys", "pooling", times * 4 * E * fewer
        yield "projections", "pooling", 2 * K * E * E / p
    if m.decoder_cross != "none":
        times = applications(m.decoder_cross, m.decoder)
        paper_reach = 2 * E * (K + 1)
        yield "cross layers", "decoder", (times - m.decoder.layers) * (paper_reach + per_layer)
        yield "cross reach", "decoder", times * (4 * K * E - paper_reach)
        yield "grouped keys", "decoder", times * 4 * K * E * fewer / p
    if m.slots_width != D:
        yield "projections", "latent", 2 * m.slots_width * D / p
    yield "projections", "decoder", 2 * D * E * _slots_read(m) / p


# ---------------------------------------------------------------- memory


def other_activations(m: Blt, row: MemoryRow) -> tuple[float, list[float]]:
    """Bytes that wait for the backward pass, and those of each layer at work."""
    E, K = m.encoder.width, m.slots
    weights = 2 * FLOAT32 * K * m.cross_heads
    # `nn.cross_attention.PatchReadsBytes`: queries spread to bytes, keys and values, weights.
    pooling = row.L * (row.size * (K * E + 3 * E) + weights)
    # `nn.cross_attention.ByteReadsPatch`: keys and values spread to bytes, queries, weights.
    reading = row.L * (row.size * (2 * K * E + 3 * E) + weights)

    kept = applications(m.encoder_cross, m.encoder) * pooling
    if m.decoder_cross == "first" or (m.decoder_cross == "all" and row.remat == "none"):
        kept += reading * applications(m.decoder_cross, m.decoder)
    kept += row.size * row.P * (m.slots_width + K * E)

    working = [m.hash_tables * row.L * E * (FLOAT32 + row.size) / 2]
    if m.decoder_cross != "none":
        working.append(row.block(m.decoder, row.L) + reading)
    if m.encoder_cross != "none":  # weighted values of every slot, in float32
        working.append(row.L * K * E * FLOAT32)
    return kept, working
