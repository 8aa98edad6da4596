"""Model config of the family `lm`: a causal LM over BPE tokens or bytes."""

import dataclasses
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Literal

from blt_jax.config import BYTE_VOCAB, Stack, choice, need
from blt_jax.families import INIT_FACTORS, Model, Plan, Prompted
from blt_jax.families.published_shapes import LATENT, TOKEN_VOCAB, WINDOW
from blt_jax.flops.breakdown import Placed


@dataclasses.dataclass(frozen=True)
class Lm(Model):
    """A causal LM over one alphabet: BPE tokens, or bytes (flat byte LM, entropy model)."""

    stack: Stack
    vocab: int = BYTE_VOCAB
    unit: str = "byte"  # "byte" | "token": what one position holds
    tied: bool = False  # the head is the embedding
    init_factor: str = "disabled"  # depth scaling of the initial weights (docs/blt.md, section 7)
    kind: str = "lm"

    backbone: ClassVar[str] = "stack"

    def __post_init__(self):
        choice("unit", self.unit, ("byte", "token"))
        choice("init_factor", self.init_factor, INIT_FACTORS)
        need(self.vocab >= 2, "vocab", self.vocab, "must be at least 2")
        need(
            self.unit == "token" or self.vocab == BYTE_VOCAB,
            "vocab",
            self.vocab,
            f"bytes need {BYTE_VOCAB}",
        )

    @property
    def reads(self) -> Literal["byte", "token"]:
        return "byte" if self.unit == "byte" else "token"

    @property
    def context_reach(self) -> int | None:
        return self.stack.layers * (self.stack.window - 1) if self.stack.window else None

    def describe(self) -> str:
        return "a byte LM" if self.unit == "byte" else f"a token LM of {self.vocab:,} entries"

    # ------------------------------------------------------------ cost

    def stacks(self) -> tuple[Placed, ...]:
        return (Placed("latent", self.stack, "positions"),)

    @property
    def head_width(self) -> int:
        return self.stack.width

    def parameters(self) -> dict[str, int]:
        return self.beside("cost").parameters(self)

    # ------------------------------------------------------------ program

    def module(self, compute: Any) -> Any:
        return self.beside("model").LmModel(self, compute)

    def prompt(self, params: Any, rows: Any, starts: Any, plan: Plan, room: int) -> Prompted:
        return self.beside("decode").prompt(params, self, rows, plan, room)

    def step(
        self,
        params: Any,
        compute: Any,
        state: Any,
        ids_B: Any,
        starts_B: Any,
        closes: tuple[int, ...],
    ) -> tuple[Any, Any, Any]:
        return self.beside("decode").step(params, self, compute, state, ids_B, closes)

    @classmethod
    def huggingface(cls) -> ModuleType:
        return cls.beside("hf")

    @classmethod
    def presets(cls) -> dict[str, Callable[[], Model]]:
        """llama3-*, llama2-*: the latent models of the BLT paper as token LMs; entropy-100m."""

        def tokens(size, vocab):
            layers, heads, width = LATENT[size]
            return cls(Stack(layers, width, heads), vocab=vocab, unit="token")

        entropy = Stack(14, 768, 12, window=WINDOW, rope_theta=10_000.0)
        twins = {
            f"{name}-{size}": functools.partial(tokens, size, vocab)
            for name, vocab in TOKEN_VOCAB.items()
            for size in LATENT
        }
        return twins | {"entropy-100m": lambda: cls(entropy, vocab=BYTE_VOCAB)}
