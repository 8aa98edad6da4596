"""Model config of the family `blt`: the Byte Latent Transformer and its relatives."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Literal

from blt_jax.config import BYTE_VOCAB, Stack, choice, need
from blt_jax.families import INIT_FACTORS, Model, Plan, Prompted
from blt_jax.families.published_shapes import LATENT, LOCAL, WINDOW
from blt_jax.flops.breakdown import Placed
from blt_jax.flops.executed import Row as ExecutedRow
from blt_jax.flops.memory import Row as MemoryRow


@dataclasses.dataclass(frozen=True)
class Blt(Model):
    """Byte Latent Transformer, and with cross-attention off its relatives (SpaceByte).

    The choices after `init_factor` are those where paper and published code differ
    (docs/blt.md, section 16): see `RELEASED` and `PAPER`.
    """

    encoder: Stack
    latent: Stack
    decoder: Stack
    slots: int = 2  # K: query (and key) slots per patch, each as wide as a byte state
    cross_heads: int = 0  # heads of both cross-attentions; 0: as many as the encoder's
    cross_kv_heads: int = 0  # their key/value heads; 0: as many as cross_heads
    # "none" | "last" | "all": after which encoder layers patches read bytes
    encoder_cross: str = "last"
    # "none" | "first" | "all": before which decoder layers bytes read patches
    decoder_cross: str = "all"
    hash_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)  # n of the byte n-grams; () for none
    hash_functions: int = 1  # hash functions per n, each with its own tables
    hash_rows: int = 500_002  # rows per table
    vocab: int = BYTE_VOCAB
    tied: bool = False  # the head is the byte embedding
    init_factor: str = "disabled"
    # "double": out = 2x + attention, as published; "single": x + attention
    cross_residual: str = "double"
    # "states" after the encoder layers, as published; "embeddings" before them
    pool_from: str = "states"
    hash_norm: bool = False  # divide the sum of embeddings by (tables + 1), as the paper says
    hash_short: str = "pad"  # n-grams that begin before the row: "pad" with id 0, or "omit"
    # which byte of an n-gram gets power 0 of the prime: "oldest" | "newest"
    hash_order: str = "oldest"
    # n-grams may look across documents of a row ("row") or not ("document")
    hash_scope: str = "row"
    kind: str = "blt"

    backbone: ClassVar[str] = "latent"
    starts_from_llama: ClassVar[bool] = True
    embedding_path: ClassVar[tuple[str, ...]] = ("encoder", "embedding")
    head_path: ClassVar[tuple[str, ...]] = ("decoder", "head")

    def __post_init__(self):
        object.__setattr__(self, "hash_sizes", tuple(self.hash_sizes))
        if not self.cross_heads:
            object.__setattr__(self, "cross_heads", self.encoder.heads)
        if not self.cross_kv_heads:
            object.__setattr__(self, "cross_kv_heads", self.cross_heads)
        choice("encoder_cross", self.encoder_cross, ("none", "last", "all"))
        choice("decoder_cross", self.decoder_cross, ("none", "first", "all"))
        choice("init_factor", self.init_factor, INIT_FACTORS)
        choice("cross_residual", self.cross_residual, ("double", "single"))
        choice("pool_from", self.pool_from, ("states", "embeddings"))
        choice("hash_short", self.hash_short, ("pad", "omit"))
        choice("hash_order", self.hash_order, ("oldest", "newest"))
        choice("hash_scope", self.hash_scope, ("row", "document"))
        for part in ("encoder", "decoder"):
            stack = getattr(self, part)
            need(
                stack.window > 0,
                f"{part}.window",
                stack.window,
                "local models need a window of at least 1",
            )
        need(self.slots >= 1, "slots", self.slots, "must be at least 1")
        need(
            self.encoder.width % self.cross_heads == 0,
            "cross_heads",
            self.cross_heads,
            f"must divide the byte width {self.encoder.width}",
        )
        need(
            self.cross_heads % self.cross_kv_heads == 0,
            "cross_kv_heads",
            self.cross_kv_heads,
            f"must divide cross_heads {self.cross_heads}",
        )
        need(
            self.decoder.width == self.encoder.width,
            "decoder.width",
            self.decoder.width,
            f"must equal encoder.width {self.encoder.width}: the decoder continues the encoder's "
            "byte states",
        )
        need(self.encoder.layers >= 1, "encoder.layers", self.encoder.layers, "must be at least 1")
        need(self.decoder.layers >= 1, "decoder.layers", self.decoder.layers, "must be at least 1")
        need(self.latent.layers >= 1, "latent.layers", self.latent.layers, "must be at least 1")
        need(
            all(n >= 1 for n in self.hash_sizes), "hash_sizes", self.hash_sizes, "must be positive"
        )
        need(
            0 <= self.hash_functions <= 11, "hash_functions", self.hash_functions, "must be 0 to 11"
        )
        need(2 <= self.hash_rows < 2**31, "hash_rows", self.hash_rows, "must be 2 to 2^31 - 1")
        need(self.vocab == BYTE_VOCAB, "vocab", self.vocab, f"bytes need {BYTE_VOCAB}")

    @property
    def slots_width(self) -> int:
        """Width of a patch between the local models and the latent model, before any projection."""
        return self.encoder.width * (self.slots if self.encoder_cross != "none" else 1)

    @property
    def hash_tables(self) -> int:
        return len(self.hash_sizes) * self.hash_functions

    # ------------------------------------------------------------ what it reads

    @property
    def patches(self) -> Literal["given"]:
        return "given"

    def describe(self) -> str:
        return "a BLT"

    # ------------------------------------------------------------ cost

    def stacks(self) -> tuple[Placed, ...]:
        """With cross-attention after every encoder layer, no scan holds the encoder's layers."""
        return (
            Placed("encoder", self.encoder, "positions", scanned=self.encoder_cross != "all"),
            Placed("latent", self.latent, "patches"),
            Placed("decoder", self.decoder, "positions"),
        )

    @property
    def head_width(self) -> int:
        return self.decoder.width

    def parameters(self) -> dict[str, int]:
        return self.beside("cost").parameters(self)

    def other_flops(
        self, convention: str, patch_size: float, context_bytes: float
    ) -> list[tuple[str, float]]:
        return self.beside("cost").other_flops(self, convention, patch_size)

    def other_executed(self, row: ExecutedRow) -> list[tuple[str, int]]:
        return list(self.beside("cost").other_executed(self, row))

    def cost_differences(
        self, between: str, patch_size: float, context_bytes: float
    ) -> list[tuple[str, str, float]]:
        return list(self.beside("cost").differences(self, between, patch_size))

    def other_activations(self, row: MemoryRow) -> tuple[float, list[float]]:
        return self.beside("cost").other_activations(self, row)

    # ------------------------------------------------------------ program

    def module(self, compute: Any) -> Any:
        return self.beside("model").BltModel(self, compute)

    def scaled_stack(self, path: tuple[str, ...]) -> Stack:
        return getattr(self, path[0])

    def prompt(self, params: Any, rows: Any, starts: Any, plan: Plan, room: int) -> Prompted:
        return self.beside("prompt_pass").prompt(params, self, rows, starts, plan, room)

    def step(
        self,
        params: Any,
        compute: Any,
        state: Any,
        ids_B: Any,
        starts_B: Any,
        closes: tuple[int, ...],
    ) -> tuple[Any, Any, Any]:
        decode = self.beside("decode")
        logits_BxV, state = decode.step(params, self, compute, state, ids_B, starts_B)
        return logits_BxV, state, starts_B

    @classmethod
    def huggingface(cls) -> ModuleType:
        return cls.beside("hf")

    @classmethod
    def presets(cls) -> dict[str, Callable[[], Model]]:
        """blt-400m ... blt-8b (BLT paper, Table 10), and released-1b, as the published weights."""

        def of(size, hash_rows):
            # Cross-attention has the local models' heads: the table's 10 for 400M do not divide
            # its width of 768.
            heads, width, decoder_layers, slots = LOCAL[size]
            layers, latent_heads, latent_width = LATENT[size]
            return cls(
                encoder=Stack(1, width, heads, window=WINDOW),
                latent=Stack(layers, latent_width, latent_heads),
                decoder=Stack(decoder_layers, width, heads, window=WINDOW),
                slots=slots,
                hash_rows=hash_rows,
            )

        made = {f"blt-{size}": functools.partial(of, size, 500_000) for size in LATENT}
        return made | {"released-1b": functools.partial(of, "1b", 500_002)}


# The two readings of BLT where the paper and the published code differ (docs/blt.md, section 16).
RELEASED = dict(
    cross_residual="double",
    pool_from="states",
    hash_norm=False,
    hash_short="pad",
    hash_order="oldest",
)
PAPER = dict(
    cross_residual="single",
    pool_from="embeddings",
    hash_norm=True,
    hash_short="omit",
    hash_order="newest",
)
