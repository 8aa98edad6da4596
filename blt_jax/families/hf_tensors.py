"""Layouts of transformers' weights <-> our parameter trees.

A family's table says for each of their tensors where it lies in our tree; both directions follow
it. Theirs are [out, in], ours [in, out] with heads apart; layers that we scan are stacked on a
leading axis. Llama rotates the channel pairs (i, i + C/2), we and BLT (2i, 2i + 1): its query and
key channels are reordered.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from blt_jax.config import ConfigError


class Named(Protocol):
    """Names -> arrays as in the file."""

    def __contains__(self, name: Any) -> bool: ...

    def __getitem__(self, name: str) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str  # in the file
    path: tuple[str, ...]  # in our tree
    layer: int | None = None  # number on the stacked axis; None: not stacked
    # leading axes of ours that are inputs of a linear map; 0: not one, same order of axes
    inputs: int = 1
    half_split: bool = False  # rotary pairs (i, i + C/2)


def block(
    prefix: str, path: tuple[str, ...], layer: int | None, half_split: bool = False
) -> Iterator[Tensor]:
    """The Tensors of one block under `path`."""
    linear = {
        "q": "self_attn.q",
        "k": "self_attn.k",
        "v": "self_attn.v",
        "gate": "mlp.gate",
        "up": "mlp.up",
    }
    for ours, theirs in (linear | {"down": "mlp.down"}).items():
        turned = half_split and ours in "qk"
        yield Tensor(
            f"{prefix}.{theirs}_proj.weight", (*path, ours, "kernel"), layer, half_split=turned
        )
    yield Tensor(f"{prefix}.self_attn.o_proj.weight", (*path, "o", "kernel"), layer, inputs=2)
    for ours, theirs in {
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }.items():
        yield Tensor(f"{prefix}.{theirs}.weight", (*path, ours, "scale"), layer, inputs=0)


def layers(
    prefix: str, path: tuple[str, ...], count: int, half_split: bool = False
) -> Iterator[Tensor]:
    """The Tensors of a scanned stack of `count` blocks under `path`."""
    for i in range(count):
        yield from block(f"{prefix}.layers.{i}", (*path, "layers"), i, half_split)


def _leaf(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _own_shape(tensor, shapes):
    shape = _leaf(shapes, tensor.path).shape
    return shape if tensor.layer is None else shape[1:]


def file_shape(tensor: Tensor, shapes: Any) -> tuple[int, ...]:
    """Shape that the tensor has in the file, given our tree of shapes."""
    own = _own_shape(tensor, shapes)
    if not tensor.inputs:
        return (math.prod(own[:-1]), own[-1]) if len(own) > 1 else own
    return math.prod(own[tensor.inputs :]), math.prod(own[: tensor.inputs])


def _half_to_interleaved(channels):
    """Where our channel c lies among theirs: pair (2i, 2i + 1) is their (i, i + C/2)."""
    return np.arange(channels).reshape(2, -1).T.reshape(-1)


def to_params(
    weights: Named, table: Iterable[Tensor], shapes: Any, where: str = "weights"
) -> dict[str, Any]:
    """Our parameter tree, float32 NumPy, from a mapping of names to arrays [out, in].

    `table`: list of Tensors; `shapes`: the tree of `network.shapes`. `weights` may load lazily:
    each tensor is asked for once, in the order of the table. Raises ConfigError for a tensor that
    is missing or wrongly shaped.
    """
    params = jax.tree.map(lambda _: None, shapes)
    for tensor in table:
        if tensor.name not in weights:
            raise ConfigError(f"{where}: tensor {tensor.name} is missing")
        theirs = np.asarray(weights[tensor.name])
        expected = file_shape(tensor, shapes)
        if theirs.shape != expected:
            raise ConfigError(
                f"{where}: tensor {tensor.name} has shape {theirs.shape}, config.json wants "
                f"{expected}"
            )
        own = _own_shape(tensor, shapes)
        ours = (theirs.T if tensor.inputs else theirs).reshape(own)
        if tensor.half_split:
            ours = ours[..., _half_to_interleaved(own[-1])]
        holder = _leaf(params, tensor.path[:-1])
        if tensor.layer is None:
            holder[tensor.path[-1]] = np.array(ours, np.float32)
        else:
            if holder[tensor.path[-1]] is None:
                holder[tensor.path[-1]] = np.empty(_leaf(shapes, tensor.path).shape, np.float32)
            holder[tensor.path[-1]][tensor.layer] = ours
    return params


def from_params(
    params: Any, table: Iterable[Tensor], shapes: Any
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, float32 array as in the file) for each Tensor of `table`. Raises ConfigError
    for other shapes.
    """
    for tensor in table:
        ours = np.asarray(_leaf(params, tensor.path), np.float32)
        if ours.shape != _leaf(shapes, tensor.path).shape:
            want = _leaf(shapes, tensor.path).shape
            raise ConfigError(
                f"parameter {'/'.join(tensor.path)} has shape {ours.shape}, the config wants {want}"
            )
        ours = ours if tensor.layer is None else ours[tensor.layer]
        if tensor.half_split:
            ours = ours[..., np.argsort(_half_to_interleaved(ours.shape[-1]))]
        shape = file_shape(tensor, shapes)
        theirs = ours.reshape(shape[::-1]).T if tensor.inputs else ours.reshape(shape)
        yield tensor.name, np.ascontiguousarray(theirs)
