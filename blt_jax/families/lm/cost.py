"""What a causal LM has to pay for outside its stack: an embedding, a norm, a head. No jax."""

from blt_jax.families.lm.config import Lm
from blt_jax.flops.formulas import stack_parameters


def parameters(m: Lm) -> dict[str, int]:
    """Parameters by part, as `model.LmModel` makes them."""
    width = m.stack.width
    return {
        "embedding": m.vocab * width,
        "hash_tables": 0,
        "encoder": 0,
        "pooling": 0,
        "latent": stack_parameters(m.stack) + width,
        "decoder": 0,
        "head": 0 if m.tied else width * m.vocab,
    }
