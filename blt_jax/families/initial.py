"""Parameters of a model: initial values, abstract shapes, logical axes.

Every weight is normal, cut at 3 sigma, sigma = fan-in^-1/2 (docs/blt.md, section 7). `init_factor`
divides the weights inside blocks and cross-attentions by a factor that grows with depth or width.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from blt_jax import batch
from blt_jax.nn.compute import PLAIN


def module(config, compute=PLAIN):
    return config.module(compute)


@functools.partial(
    jax.jit, static_argnums=1
)  # a trace takes a second: shapes, axes and values share one
def _boxed(key, config):
    return module(config).init(key, batch.example(config))["params"]


def init(key, config):
    """Float32 parameter tree of nested dicts. `key`: a jax.random key."""
    params = nn.meta.unbox(_boxed(key, config))
    if config.init_factor == "disabled":
        return params
    return jax.tree_util.tree_map_with_path(lambda path, w: _scaled(path, w, config), params)


@functools.cache
def _abstract(config):
    return jax.eval_shape(lambda key: _boxed(key, config), jax.random.key(0))


@functools.cache
def shapes(config):
    """The tree of `init` as jax.ShapeDtypeStruct, without computing anything."""
    boxed = lambda x: isinstance(x, nn.meta.AxisMetadata)
    # Not `unbox`, which would constrain what is abstract where a mesh is known.
    return jax.tree.map(lambda x: x.value if boxed(x) else x, _abstract(config), is_leaf=boxed)


@functools.cache
def logical_axes(config):
    """The tree of `init` with a PartitionSpec of logical axis names for each parameter."""
    return nn.get_partition_spec(_abstract(config))


def _scaled(path, weight, config):
    """Divides the projections of layer l by its depth or width factor f (docs/blt.md, section 7)."""
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
