"""AdamW with global-norm clipping; linear warm-up and cosine as a function of traced numbers.

The learning rate enters the step as data, so that runs which differ only in budget or peak share one
compiled program.
"""

import jax.numpy as jnp
import optax

from blt_jax.config import Optimizer


def transform(config: Optimizer):
    """Everything of AdamW but the learning rate (paper, section 4.8): clip, moments, decay of all weights."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        optax.add_decayed_weights(config.weight_decay),
    )


def schedule(config: Optimizer, steps):
    """The numbers of the schedule, float32 scalars: an argument of the training step."""
    values = dict(peak=config.learning_rate, warmup=config.warmup_steps, steps=steps, final_ratio=config.final_ratio)
    return {name: jnp.float32(value) for name, value in values.items()}


def learning_rate(step, schedule):
    """Learning rate of step `step` (from 0): linear to the peak, then a cosine to final_ratio x peak."""
    warm = (step + 1) / jnp.maximum(schedule["warmup"], 1)
    progress = (step - schedule["warmup"]) / jnp.maximum(schedule["steps"] - schedule["warmup"], 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
    decayed = schedule["final_ratio"] + (1 - schedule["final_ratio"]) * cosine
    return schedule["peak"] * jnp.where(step < schedule["warmup"], warm, decayed)
