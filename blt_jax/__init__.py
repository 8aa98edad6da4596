"""blt_jax: scaling studies of the Byte Latent Transformer against tokens, in JAX."""
