"""What a study is: families of models at several sizes, their budgets, the data that all of them
read.
"""

import dataclasses
from collections.abc import Iterable

from blt_jax.config import Data, Init, Mesh, Optimizer, Tokenizer, Train, choice, later, need
from blt_jax.families import Model
from blt_jax.patching import Patching


def _positive(budgets: Iterable[float]) -> tuple[float, ...]:
    """Budgets as floats."""
    budgets = tuple(float(b) for b in budgets)
    need(all(b > 0 for b in budgets), "budgets", budgets, "must be positive")
    return budgets


@dataclasses.dataclass(frozen=True)
class Size:
    model: Model
    learning_rate: float  # peak, at this size
    budgets: tuple[float, ...] = later(())  # training FLOPs of this size's runs; (): the study's

    def __post_init__(self):
        object.__setattr__(self, "budgets", _positive(self.budgets))


@dataclasses.dataclass(frozen=True)
class Family:
    """One curve of the report: the same architecture and patching at several sizes."""

    sizes: dict[str, Size]
    patching: Patching | None = None
    label: str = ""  # name in plots; "": the family's key
    tokenizer: Tokenizer | None = later(None)  # of a family of token models; None: the study's

    def __post_init__(self):
        need(bool(self.sizes), "sizes", self.sizes, "a family needs at least one size")
        units = sorted({entry.model.unit for entry in self.sizes.values()})
        need(
            len(units) == 1,
            "sizes",
            units,
            "the models of a family read the same: bytes, tokens or patches",
        )
        need(
            self.tokenizer is None
            or all(entry.model.reads == "token" for entry in self.sizes.values()),
            "tokenizer",
            units,
            "only token models have a tokenizer",
        )


@dataclasses.dataclass(frozen=True)
class EntropyModel:
    """The byte LM that measures entropies; trained first, on the study's own training split."""

    size: Size
    bytes: int = 1_000_000  # training bytes
    rows: int = 8


@dataclasses.dataclass(frozen=True)
class Study:
    name: str
    families: dict[str, Family]
    # training FLOPs of each run, in `convention`, where a size names none
    budgets: tuple[float, ...]
    entropy_model: EntropyModel
    data: Data = Data()
    tokenizer: Tokenizer = Tokenizer()
    optimizer: Optimizer = Optimizer()  # learning_rate and warmup_steps are set per run
    init: Init = Init()  # of the BLT models; others start from random weights
    train: Train = Train()  # steps are solved per run
    mesh: Mesh = Mesh()
    seeds: tuple[int, ...] = (0,)
    convention: str = "exact"  # FLOP convention that budgets are matched in: "paper" | "exact"
    warmup_fraction: float = 0.1  # of a run's steps, at most optimizer.warmup_steps
    checkpoints_per_run: int = 4  # evenly spaced, the last one at the end
    sample_bytes: int = 320  # length of the text that the report shows cut into patches
    # validation bytes that the sweep's end reads noised and along thresholds; 0: none
    noise_bytes: int = later(32_768)

    def __post_init__(self):
        object.__setattr__(self, "budgets", _positive(self.budgets))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        sizes = [size for family in self.families.values() for size in family.sizes.values()]
        budgeted = bool(self.budgets) or all(size.budgets for size in sizes)
        need(
            budgeted,
            "budgets",
            self.budgets,
            "a study needs at least one FLOP budget, or each of its sizes does",
        )
        need(bool(self.seeds), "seeds", self.seeds, "a study needs at least one seed")
        need(bool(self.families), "families", self.families, "a study needs at least one family")
        choice("convention", self.convention, ("paper", "exact"))
        need(
            self.checkpoints_per_run >= 1,
            "checkpoints_per_run",
            self.checkpoints_per_run,
            "must be at least 1",
        )
        need(self.noise_bytes >= 0, "noise_bytes", self.noise_bytes, "must not be negative")
        need(
            0 <= self.warmup_fraction < 1,
            "warmup_fraction",
            self.warmup_fraction,
            "must be 0 to below 1",
        )
        for name, family in self.families.items():
            for size, entry in family.sizes.items():
                where = f"families.{name}.sizes.{size}"
                need(
                    (entry.model.patches == "given") == (family.patching is not None),
                    where,
                    entry.model.kind,
                    "a family has patching if its models take patches, and only then (kind 'blt')",
                )
        entropy = self.entropy_model.size.model
        need(
            entropy.unit == "byte",
            "entropy_model.size.model",
            entropy.kind,
            "the entropy model is a byte LM (kind 'lm', unit 'byte')",
        )
        patchings = [f.patching for f in self.families.values() if f.patching is not None]
        need(
            entropy.context_reach is not None or not any(p.needs_entropies for p in patchings),
            "entropy_model.size.model",
            entropy.describe(),
            "needs a window (stack.window): an entropy must depend on a bounded number of bytes",
        )
