"""FLOPs per position of what every family is made of, by the conventions that need no program."""

from blt_jax.config import Stack


class Paper:
    """The BLT paper's formulas: feed-forward of 16 h^2, half of the window as the mean context."""

    name = "paper"
    byte_vocab = 256

    def head(self, width: int, vocab: int) -> float:
        return 2 * width * vocab

    def attention(self, layers: float, width: int, context: float) -> float:
        return 4 * layers * width * (context + 1) / 2

    def qkvo(self, layers: float, width: int, keys_per_query: float = 1.0) -> float:
        return (2 * keys_per_query + 2) * 2 * layers * width**2

    def stack(self, s: Stack, context: float) -> float:
        """A window counts as a context of its length."""
        forward = 16 * s.layers * s.width**2
        reached = self.attention(s.layers, s.width, s.window or context)
        return forward + self.qkvo(s.layers, s.width) + reached


class Exact(Paper):
    """Every matrix product that the architecture needs, with true causal and window averages."""

    name = "exact"
    byte_vocab = 260

    def stack(self, s: Stack, context: float) -> float:
        projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
        seen = 4 * s.width * reach(s, context)
        return s.layers * (2 * projections + seen + 6 * s.width * s.ffn)


FORMULAS = {"paper": Paper(), "exact": Exact()}


def reach(s: Stack, context: float) -> float:
    """Mean number of keys that a causal query sees: of min(i + 1, window)."""
    window = min(s.window or context, context)
    return (window * (window + 1) / 2 + (context - window) * window) / context


def stack_parameters(s: Stack) -> int:
    """Weights of a stack of blocks, with the scales of their norms."""
    projections = s.width * s.head_width * (2 * s.heads + 2 * s.kv_heads)
    return s.layers * (projections + 3 * s.width * s.ffn + 2 * s.width)
