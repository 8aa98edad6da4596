"""The port of a model family, and the register of families.

A family is an architecture: its config is a frozen dataclass that inherits `Model` and answers what
the rest of the program asks, so that no other file needs to know which families there are. What
costs, plans and memory need imports no jax; what computes imports it when it is called.

To add a family: one file (or a folder like `lm/` and `blt/`) with the class, and its line in
`FAMILIES`. Needed are `describe`, `head_width`, `parameters` and `module`; `stacks` where it has
blocks; `prompt` and `step` to generate. All else has a default.
"""

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from blt_jax.config import ConfigError, Stack, choice, nearest
from blt_jax.flops.breakdown import Placed
from blt_jax.patching import Patching

if TYPE_CHECKING:
    import jax
    import numpy as np

    from blt_jax.batch import Batch
    from blt_jax.flops.executed import Row as ExecutedRow
    from blt_jax.flops.memory import Row as MemoryRow
    from blt_jax.nn.compute import Compute

# kind, as configs write it: where its class is
FAMILIES = {
    "lm": "blt_jax.families.lm.config:Lm",
    "blt": "blt_jax.families.blt.config:Blt",
}

INIT_FACTORS = ("disabled", "current_depth", "global_depth", "dim_ratio")


class Losses(NamedTuple):
    """What a model says of a batch. `auxiliary` is added to the mean loss; 0.0: none."""

    nats_BxL: "jax.Array"  # float32, cross-entropy of each target, whatever the mask says
    auxiliary: "jax.Array | float"
    metrics: dict[str, "jax.Array"]  # scalars, summed over the batch, such as patches it made


class Prompted(NamedTuple):
    """A model after prompts."""

    logits_BxV: "jax.Array"  # float32, of the next ids
    state: Any  # a pytree that `step` takes; its shapes are static
    # float32 nats of the distribution after each id, where the plan asks for them
    entropies_BxL: "jax.Array | None" = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a model is decoded: what compiled programs depend on, the shapes aside."""

    model: "Model"
    closes: tuple[int, ...]  # ids that end a document: attention does not look back over them
    compute: "Compute"
    patching: Patching | None = None  # where patches are given
    patcher: "Plan | None" = None  # of the entropy model, where the patching needs one
    rounds: bool = False  # entropies are rounded to float16, as training did
    measures: bool = False  # `prompt` returns entropies, too


class Model:
    """A model config. Subclasses are frozen dataclasses with at least `kind`, `vocab`, `tied` and
    `init_factor`.
    """

    kind: str
    vocab: int  # ids that the head tells apart
    tied: bool  # the head is the embedding
    init_factor: str  # one of INIT_FACTORS

    backbone: ClassVar[str]  # field of the Stack whose width and depth set the model's size
    starts_from_llama: ClassVar[bool] = False  # its backbone may take the layers of a Llama
    embedding_path: ClassVar[tuple[str, ...]] = ("embedding",)  # where parameters lie in the tree
    head_path: ClassVar[tuple[str, ...]] = ("head",)

    # ------------------------------------------------------------ what it reads

    @property
    def reads(self) -> Literal["byte", "token"]:
        """What one position of a row holds."""
        return "byte"

    @property
    def patches(self) -> Literal["none", "given", "made"]:
        """Whether patches come with the batch, by a patching rule, or are made by the model."""
        return "none"

    @property
    def unit(self) -> str:
        """What the backbone takes one step for, "byte", "token" or "patch"; costs depend on the
        bytes per unit.
        """
        return self.reads if self.patches == "none" else "patch"

    @property
    def context_reach(self) -> int | None:
        """Positions before an id that its logits depend on; None: all of them."""
        return None

    def describe(self) -> str:
        """For messages: "a BLT", "a token LM of 4,096 entries"."""
        raise NotImplementedError

    # ------------------------------------------------------------ what it costs; without jax

    def stacks(self) -> tuple[Placed, ...]:
        """Its stacks of blocks: the line of a `Breakdown` that each counts in, and over what."""
        return ()

    @property
    def head_width(self) -> int:
        """Width of the states that the head reads."""
        raise NotImplementedError

    @property
    def embedding_width(self) -> int:
        """Columns of the embedding."""
        return self.head_width

    def parameters(self) -> dict[str, int]:
        """Parameters by part: embedding, hash_tables, encoder, pooling, latent, decoder, head."""
        raise NotImplementedError

    def other_flops(
        self, convention: str, patch_size: float, context_bytes: float
    ) -> list[tuple[str, float]]:
        """(line of a `Breakdown`, FLOPs per byte) of the products outside stacks and head, in
        "paper" or "exact"."""
        return []

    def other_executed(self, row: "ExecutedRow") -> list[tuple[str, int]]:
        """Likewise in "executed", for a whole row, by the pass that it is."""
        return []

    def cost_differences(
        self, between: str, patch_size: float, context_bytes: float
    ) -> list[tuple[str, str, float]]:
        """(cause, line, FLOPs per byte) of `other_flops` between "paper" and "exact" (`between` =
        "paper"), or of `other_flops` and `other_executed` (`between` = "executed"), forward."""
        return []

    def other_activations(self, row: "MemoryRow") -> tuple[float, list[float]]:
        """Bytes that wait for the backward pass outside stacks, and those of each layer at
        work.
        """
        return 0.0, []

    # ------------------------------------------------------------ how it computes; with jax

    def module(self, compute: "Compute") -> Any:
        """The Flax module: `apply({"params": params}, batch, head=True)` gives logits [B, L, V],
        float32; without `head` the states that the head reads."""
        raise NotImplementedError

    def losses(self, params: Any, batch: "Batch", compute: "Compute") -> Losses:
        """Cross-entropy of the targets, what else training minimises, and metrics."""
        from blt_jax.families import head

        return Losses(head.losses(params, batch, self, compute), 0.0, {})

    def scaled_stack(self, path: tuple[str, ...]) -> Stack:
        """The Stack whose depth and width scale the initial value of the parameter at `path`."""
        return getattr(self, self.backbone)

    # ------------------------------------------------------------ how it decodes; with jax

    def prompt(
        self,
        params: Any,
        rows: list["np.ndarray"],
        starts: list["np.ndarray"] | None,
        plan: Plan,
        room: int,
    ) -> Prompted:
        """What decoding goes on from after `rows` (int32 ids [L >= 1] each), in one parallel pass.

        `params`: as `module` takes them; `starts`: of each row the patch starts, bool [L + 1] with
        the next id's, where patches are given, else None; `room`: ids that may follow.
        """
        raise ConfigError(f"{self.describe()} cannot generate: its family has no `prompt`")

    def step(
        self,
        params: Any,
        compute: "Compute",
        state: Any,
        ids_B: "jax.Array",
        starts_B: "jax.Array",
        closes: tuple[int, ...],
    ) -> tuple["jax.Array", Any, "jax.Array"]:
        """(logits [B, V] of the next ids, state, bool [B]: whether `ids_B` completed a patch).

        `params`: with layers apart (`nn.incremental.by_layer`); `starts_B`: whether the next id
        begins a patch, where patches are given; `closes`: ids that end a document.
        """
        raise ConfigError(f"{self.describe()} cannot generate: its family has no `step`")

    # ------------------------------------------------------------ other programs' files

    @classmethod
    def huggingface(cls) -> ModuleType | None:
        """The module that reads and writes it for transformers, or None. It has

        - `MODEL_TYPES`: values of `model_type` that it reads;
        - `read(settings, where, byte_vocab)` of a parsed config.json: (model, its entropy model or
          None, its `Patching` or None, positions of context);
        - `write(model, patcher, patching, context)`: config.json, a dict;
        - `tensors(model, patcher=False)`: list of `hf_tensors.Tensor`; with `patcher`, of a model
          that is the entropy model inside another;
        - `EMBEDDING`: the name of the embedding in their files.
        """
        return None

    @classmethod
    def beside(cls, name: str) -> ModuleType:
        """The module `name` in the family's folder, loaded when it is asked for."""
        return importlib.import_module(f"{cls.__module__.rpartition('.')[0]}.{name}")

    # ------------------------------------------------------------ the register

    @classmethod
    def presets(cls) -> dict[str, Callable[[], "Model"]]:
        """Published shapes by name."""
        return {}

    @staticmethod
    def of_kind(kind: str) -> type["Model"]:
        """The class that configs call `kind`. Raises ConfigError for an unknown one."""
        choice("kind", kind, tuple(FAMILIES))
        module, _, name = FAMILIES[kind].partition(":")
        return getattr(importlib.import_module(module), name)


def preset(name: str) -> Model:
    """The model config of a published shape: blt-400m ... blt-8b, llama3-*, llama2-* with the same
    latent model as a token LM, released-1b, entropy-100m. Raises ConfigError with the nearest name.
    """
    known = {key: made for kind in FAMILIES for key, made in Model.of_kind(kind).presets().items()}
    if name not in known:
        raise ConfigError(f"preset {name!r}: {nearest(name, known)}")
    return known[name]()
