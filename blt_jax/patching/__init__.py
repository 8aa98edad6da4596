"""Where patches start."""

import dataclasses

from blt_jax.config import choice, need

RULES = ("entropy", "relative", "combined", "space", "strided", "byte", "bpe")


@dataclasses.dataclass(frozen=True)
class Patching:
    """Where patches start (docs/blt.md, section 2). Rules see bytes already read, never later ones."""

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
        need(
            self.target == 0 or self.target >= 1,
            "patching.target",
            self.target,
            "must be 0 or at least 1 byte",
        )
        need(
            self.rule != "strided" or self.stride >= 1,
            "patching.stride",
            self.stride,
            "must be at least 1 byte",
        )
        need(self.max_length >= 0, "patching.max_length", self.max_length, "must not be negative")

    @property
    def needs_entropies(self):
        return self.rule in ("entropy", "relative", "combined")
