"""The port of a patching rule, the register of rules, and the settings that configs hold.

A start at position t means that id t begins a patch; ids 0 and 1 of a document always begin one
(docs/blt.md, section 2). A rule decides the other positions, from ids and entropies before t alone:
once for whole rows in NumPy, once id by id inside a compiled loop. Forced starts and the cut of
long patches are the same for all rules (`row_starts.py`, `live.py`).

To add a rule: one file with a subclass of `Rule`, and its line in `RULES`. Configs and plans load
no jax: a rule's file imports it, if at all, inside `step`.
"""

import dataclasses
import functools
import importlib
from typing import Any, ClassVar

import numpy as np

from blt_jax.config import choice, need

Array = Any  # jax.Array: of a compiled loop

# name, as configs write it: where its class is
RULES = {
    "entropy": "blt_jax.patching.entropy:Entropy",
    "relative": "blt_jax.patching.relative:Relative",
    "combined": "blt_jax.patching.combined:Combined",
    "space": "blt_jax.patching.space:Space",
    "strided": "blt_jax.patching.strided:Strided",
    "byte": "blt_jax.patching.byte:Byte",
    "bpe": "blt_jax.patching.delimiter:Delimiter",
}

# Bytes per patch where nothing says more: that of space patches of English prose.
TYPICAL_SIZE = 6.0


class Rule:
    """A patching rule. It holds no state: `patching` has the settings, `memory` the past."""

    reads: ClassVar[tuple[str, ...]] = ("ids",)  # of "ids", "entropies": what it looks at
    has_threshold: ClassVar[bool] = False  # `threshold` sets the mean patch size: it can be solved

    def check(self, patching: "Patching") -> None:
        """Raises ConfigError for settings that the rule cannot work with."""

    def expected_size(self, patching: "Patching") -> float:
        """Mean positions per patch before anything is measured; 0.0: not known."""
        return 0.0

    def shortest(self, patching: "Patching") -> int:
        """Positions of the shortest patch, the first two and the last of a document aside."""
        return 1

    def longest(self, patching: "Patching") -> int | None:
        """Positions of the longest patch; None: no bound."""
        return None

    def decide(self, ids: np.ndarray, entropies: np.ndarray, patching: "Patching") -> np.ndarray:
        """Bool [..., N - 1]: whether positions 2 to N begin a patch.

        `ids`: int [..., N]; `entropies`: float32 [..., N] in nats, None where the rule reads
        none; `entropies[k]` is of the distribution after ids 0 to k. Element t - 2 is about
        position t and may depend on ids and entropies 0 to t - 1.
        """
        raise NotImplementedError

    def remember(self, ids: np.ndarray, entropies: np.ndarray, patching: "Patching") -> Any:
        """What `step` must know of the ids [N] of a row: NumPy scalars or arrays of a static shape
        in any nest of tuples and dicts, which `step` gets stacked, [B, ...]. (): nothing."""
        return ()

    def step(
        self,
        memory: Any,
        position_B: Array,
        ids_B: Array,
        entropy_B: Array,
        patching: "Patching",
    ) -> tuple[Any, Array]:
        """(memory with one more id, bool [B]: whether the position after it begins a patch).

        `position_B`: int32, the position that is decided, at least 1 (where the answer counts for
        nothing); `ids_B`: int32, the ids before it; `entropy_B`: float32, nats, after those.
        """
        raise NotImplementedError


@functools.cache
def _load(place: str) -> Rule:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)()


@dataclasses.dataclass(frozen=True)
class Patching:
    """Where patches start (docs/blt.md, section 2)."""

    rule: str = "entropy"  # one of RULES
    # mean positions (bytes, BOS, EOS) per patch to solve `threshold` for; 0: as given
    target: float = 0.0
    threshold: float = 1.335442066192627  # nats; rule "relative": the rise in nats
    threshold_add: float = 0.0  # nats, rule "combined": the rise
    stride: int = 0  # bytes, rule "strided"
    max_length: int = 0  # bytes; longer patches are cut; 0: no limit
    newline_reset: bool = False  # the entropy model's context restarts after each newline

    def __post_init__(self):
        choice("patching.rule", self.rule, RULES)
        target_ok = self.target == 0 or self.target >= 1
        need(target_ok, "patching.target", self.target, "must be 0 or at least 1 byte")
        self.implementation.check(self)
        need(self.max_length >= 0, "patching.max_length", self.max_length, "must not be negative")

    @property
    def implementation(self) -> Rule:
        """The rule itself."""
        return _load(RULES[self.rule])

    @property
    def needs_ids(self) -> bool:
        """Whether the rule looks at ids, beyond their number."""
        return "ids" in self.implementation.reads

    @property
    def needs_entropies(self) -> bool:
        """Whether the rule looks at entropies."""
        return "entropies" in self.implementation.reads

    @property
    def has_threshold(self) -> bool:
        """Whether `threshold` can be solved for a target."""
        return self.implementation.has_threshold

    @property
    def expected_size(self) -> float:
        """Mean positions per patch to plan with before anything is measured."""
        size = float(self.implementation.expected_size(self) or self.target or TYPICAL_SIZE)
        return min(size, self.max_length or size)

    @property
    def longest_patch(self) -> int | None:
        """Positions of the longest patch; None: no bound."""
        return self.max_length or self.implementation.longest(self)

    def most_patches(self, positions: int) -> int:
        """Patches that so many more positions can begin, at most."""
        shortest = self.implementation.shortest(self)
        if 0 < self.max_length < shortest:
            shortest = 1  # what a cut leaves over
        return -(-positions // shortest)
