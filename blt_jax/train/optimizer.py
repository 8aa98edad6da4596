"""AdamW with global-norm clipping; linear warm-up and cosine as a function of traced numbers.

The learning rate enters the step as data, so that runs which differ only in budget or peak share
one compiled program.
"""

import jax
import jax.numpy as jnp
import optax

from blt_jax.config import Optimizer


def transform(config: Optimizer) -> optax.GradientTransformation:
    """Everything of AdamW but the learning rate (paper, section 4.8): clip, moments, decay of all
    weights.

    `config.tables` names the moments of the hash tables; the norm that is clipped, decay and rate
    are everyone's.

    - "adam": two float32 moments, 8 bytes per parameter, as for the rest.
    - "adafactor" (arXiv 1804.04235): the second moment as the outer product of its means over rows
      and over columns, no first: 4 (1 / rows + 1 / columns) bytes. Updates are at most 1 in root
      mean square.
    - "lion" (arXiv 2302.06675): the sign of one moment, bfloat16: 2 bytes. An entry moves by the
      whole rate or not at all, so only those that the batch reads move: a moment that fades would
      push a rare n-gram's row for thousands of steps. Steps are some five times as long as Adam's;
      its authors lower the rate 3 to 10 times.
    """
    moments = optax.scale_by_adam(config.beta1, config.beta2, config.eps)
    if config.tables != "adam":
        rules = {"rest": moments, "tables": _TABLES[config.tables]()}
        moments = optax.partition(rules, _labels)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        moments,
        optax.add_decayed_weights(config.weight_decay),
    )


def _labels(params):
    """ "tables" for the hash tables, "rest" for all else."""
    label = lambda path, _: "tables" if getattr(path[-1], "key", None) == "tables" else "rest"
    return jax.tree_util.tree_map_with_path(label, params)


def _adafactor():
    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1), optax.clip_by_block_rms(1.0)
    )


def _lion():
    inner = optax.scale_by_lion(mu_dtype=jnp.bfloat16)

    def update(gradient, state, params=None):
        updates, state = inner.update(gradient, state, params)
        return jax.tree.map(lambda u, g: jnp.where(g == 0, 0, u), updates, gradient), state

    return optax.GradientTransformation(inner.init, update)


_TABLES = {"adafactor": _adafactor, "lion": _lion}


def schedule(config: Optimizer, steps: int) -> dict[str, jax.Array]:
    """The numbers of the schedule, float32 scalars: an argument of the training step."""
    values = dict(
        peak=config.learning_rate,
        warmup=config.warmup_steps,
        steps=steps,
        final_ratio=config.final_ratio,
    )
    return {name: jnp.float32(value) for name, value in values.items()}


def learning_rate(step: jax.Array, schedule: dict[str, jax.Array]) -> jax.Array:
    """Learning rate of step `step` (from 0): linear to the peak, then a cosine to final_ratio x
    peak.
    """
    warm = (step + 1) / jnp.maximum(schedule["warmup"], 1)
    progress = (step - schedule["warmup"]) / jnp.maximum(schedule["steps"] - schedule["warmup"], 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
    decayed = schedule["final_ratio"] + (1 - schedule["final_ratio"]) * cosine
    return schedule["peak"] * jnp.where(step < schedule["warmup"], warm, decayed)
