"""Pure functions of (params, batch, config), for any model config: `init(key, config)`,
`apply(params, batch, config)` and their relatives.

Every weight is normal, cut at 3 sigma, sigma = fan-in^-1/2 (docs/blt.md, section 7). `init_factor`
divides the weights inside blocks and cross-attentions by a factor that grows with depth or width.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from blt_jax.batch import Batch, example
from blt_jax.families import Model
from blt_jax.families.head import entropy, logits, losses
from blt_jax.nn.attention import backend_of
from blt_jax.nn.compute import PLAIN, Compute

__all__ = [
    "PLAIN",
    "Compute",
    "apply",
    "backend_of",
    "entropy",
    "init",
    "logical_axes",
    "logits",
    "losses",
    "nats",
    "shapes",
]


def apply(params: Any, batch: Batch, config: Model, compute: Compute = PLAIN) -> jax.Array:
    """Logits of the next id [B, L, V], float32."""
    return config.module(compute).apply({"params": params}, batch)


def nats(params: Any, batch: Batch, config: Model, compute: Compute) -> jax.Array:
    """Cross-entropy of each target in nats, float32 [B, L]; 0 where loss_mask_BxL is 0."""
    return config.losses(params, batch, compute).nats_BxL * batch["loss_mask_BxL"]


# ---------------------------------------------------------------- parameters


# A trace takes a second: shapes, axes and values share one.
@functools.partial(jax.jit, static_argnums=1)
def _boxed(key, config):
    return config.module(PLAIN).init(key, example(config))["params"]


def init(key: jax.Array, config: Model) -> dict[str, Any]:
    """Float32 parameter tree of nested dicts. `key`: a jax.random key."""
    params = nn.meta.unbox(_boxed(key, config))
    if config.init_factor == "disabled":
        return params
    return jax.tree_util.tree_map_with_path(lambda path, w: _scaled(path, w, config), params)


@functools.cache
def _abstract(config):
    return jax.eval_shape(lambda key: _boxed(key, config), jax.random.key(0))


@functools.cache
def shapes(config: Model) -> dict[str, Any]:
    """The tree of `init` as jax.ShapeDtypeStruct, without computing anything."""
    boxed = lambda x: isinstance(x, nn.meta.AxisMetadata)
    # Not `unbox`, which would constrain what is abstract where a mesh is known.
    return jax.tree.map(lambda x: x.value if boxed(x) else x, _abstract(config), is_leaf=boxed)


@functools.cache
def logical_axes(config: Model) -> dict[str, Any]:
    """The tree of `init` with a PartitionSpec of logical axis names for each parameter."""
    return nn.get_partition_spec(_abstract(config))


def _scaled(path, weight, config):
    """Divides the projections of a layer by its depth or width factor (docs/blt.md, section 7)."""
    names = [p.key for p in path]
    inner = any(
        name in ("layers", "cross") or name.startswith(("layer_", "cross_")) for name in names
    )
    if names[-1] != "kernel" or not inner:
        return weight
    stack = config.scaled_stack(tuple(names))
    stacked = "layers" in names
    numbered = [int(name.split("_")[1]) for name in names if name.startswith(("layer_", "cross_"))]
    layer = jnp.arange(stack.layers) if stacked else jnp.array(numbered[:1] or [0])
    factor = {
        "current_depth": jnp.sqrt(2.0 * (layer + 1)),
        "global_depth": jnp.full(layer.shape, (2.0 * (stack.layers + 1)) ** 0.5),
        "dim_ratio": jnp.full(layer.shape, stack.width / 4096),
    }[config.init_factor]
    return weight / (factor.reshape(-1, *[1] * (weight.ndim - 1)) if stacked else factor[0])
