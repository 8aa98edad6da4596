"""blt_jax: scaling studies of the Byte Latent Transformer against tokens, in JAX.

`blt_jax.load(DIR)` gives a trained model, from a run folder or a Hugging Face directory (see
`facade`).
"""

__all__ = ["load"]


def __getattr__(name):
    if (
        name == "load"
    ):  # imported when asked for: launchers and plans import this package without jax
        from blt_jax.facade import load

        return load
    raise AttributeError(f"module 'blt_jax' has no attribute {name!r}")
