"""The counter of matrix products on programs small enough to count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from blt_jax.config import ConfigError
from blt_jax.flops.trace import count

SQUARE = jax.ShapeDtypeStruct((4, 4), jnp.float32)
ONE = 2 * 4 * 4 * 4  # FLOPs of SQUARE @ SQUARE


def flops(function, *args):
    found = count(jax.jit(function), *args)
    assert not found.unknown
    return found.flops


def test_batched_contraction():
    left, right = (
        jax.ShapeDtypeStruct((5, 2, 3, 7), jnp.bfloat16),
        jax.ShapeDtypeStruct((7, 5, 3, 11), jnp.bfloat16),
    )
    assert flops(lambda x, y: jnp.einsum("bqij,jbik->bqk", x, y), left, right) == 2 * (
        5 * 2 * 11
    ) * (3 * 7)


def test_elementwise_work_and_trees_of_arrays_count_nothing():
    assert (
        flops(
            lambda tree: jax.nn.softmax(tree["x"]) * tree["y"], {"x": SQUARE, "y": np.ones((4, 4))}
        )
        == 0
    )


def test_scan_counts_its_length():
    def nested(x):
        inner = lambda carry, _: (carry @ carry, None)
        outer = lambda carry, _: (jax.lax.scan(inner, carry, length=3)[0] @ x, None)
        return jax.lax.scan(outer, x, length=5)[0]

    assert flops(nested, SQUARE) == 5 * (3 + 1) * ONE


def test_cond_counts_its_costliest_branch():
    branches = [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x]
    assert flops(lambda i, x: jax.lax.switch(i, branches, x) @ x, 0, SQUARE) == 3 * ONE


def test_cond_inside_a_recomputed_scan():
    """A step is two products at most; backward, the first of them again, and four for their
    gradients.
    """

    def step(carry, go):
        return jax.lax.cond(go, lambda x: jnp.sin(x @ x) @ x, lambda x: x, carry), None

    def loss(x, flags):
        return jax.lax.scan(jax.checkpoint(step), x, flags)[0].sum()

    flags = jax.ShapeDtypeStruct((6,), bool)
    assert flops(loss, SQUARE, flags) == 6 * 2 * ONE
    assert flops(jax.value_and_grad(loss), SQUARE, flags) == 6 * (2 + 1 + 4) * ONE


def test_nested_jit():
    twice = jax.jit(lambda x: x @ x)
    assert flops(lambda x: jax.jit(lambda y: twice(twice(y)))(x), SQUARE) == 2 * ONE


@pytest.mark.parametrize("remat, products", [(False, 2 + 4), (True, 2 + 4 + 1)])
def test_recomputation_counts_what_it_repeats(remat, products):
    """Two layers forward, twice as much back; the second product is needed by no gradient and so
    not repeated.
    """
    layers = lambda x, w: jnp.sin(x @ w) @ w
    program = jax.checkpoint(layers) if remat else layers
    assert (
        flops(jax.value_and_grad(lambda x, w: program(x, w).sum(), (0, 1)), SQUARE, SQUARE)
        == products * ONE
    )
    assert flops(program, SQUARE, SQUARE) == 2 * ONE


def test_custom_rules_count_the_rule_that_runs():
    @jax.custom_vjp
    def product(x):
        return x @ x

    product.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x @ x @ x,))

    @jax.custom_jvp
    def cubed(x):
        return x @ x @ x

    cubed.defjvp(lambda primals, tangents: (cubed(*primals), tangents[0] @ primals[0]))
    assert flops(product, SQUARE) == ONE and flops(cubed, SQUARE) == 2 * ONE
    assert flops(jax.value_and_grad(lambda x: product(x).sum()), SQUARE) == (1 + 3) * ONE
    assert flops(jax.value_and_grad(lambda x: cubed(x).sum()), SQUARE) == (2 + 1) * ONE


@pytest.mark.parametrize(
    "mesh", [Mesh(np.array(jax.devices()[:1]), "d"), AbstractMesh((2, 2), ("d", "unused"))]
)
def test_shard_map_counts_every_device(mesh):
    """Rows are divided over "d" and nothing over "unused", whose devices all do the same."""
    split = PartitionSpec("d")
    sharded = jax.shard_map(
        lambda x, w: x @ w, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split
    )
    assert flops(sharded, SQUARE, SQUARE) == ONE * mesh.shape.get("unused", 1)
    partly = jax.shard_map(
        lambda x, w: x @ w,
        mesh=mesh,
        in_specs=(split, PartitionSpec()),
        out_specs=split,
        axis_names={"d"},
    )
    assert flops(partly, SQUARE, SQUARE) == ONE


def test_shard_map_inside_a_scan_and_its_gradient():
    """Each of 4 devices holds a quarter of the columns; 3 steps, and two more products for each one
    backward.
    """
    mesh = AbstractMesh((4,), ("d",))
    columns = PartitionSpec(None, "d")

    def inner(x, w):
        return jax.lax.psum_scatter(
            (x @ w) @ jnp.ones((1, 4), x.dtype), "d", scatter_dimension=1, tiled=True
        )

    mapped = jax.shard_map(inner, mesh=mesh, in_specs=(PartitionSpec(), columns), out_specs=columns)
    program = lambda x, w: jax.lax.scan(lambda c, _: (mapped(c, w), None), x, length=3)[0].sum()
    once = 4 * (2 * 4 * 4 * 1 + 2 * 4 * 1 * 4)  # on each device 4x4 @ 4x1, then 4x1 @ 1x4
    assert flops(program, SQUARE, SQUARE) == 3 * once
    back = 4 * (2 * 4 * 4 * 1 + 2 * 4 * 4 * 1 + 2 * 4 * 1 * 4)  # no gradient for the ones
    assert flops(jax.value_and_grad(program, (0, 1)), SQUARE, SQUARE) == 3 * (once + back)


def test_work_without_a_rule_is_named():
    image, kernel = jnp.ones((1, 1, 8)), jnp.ones((1, 1, 3))
    convolved = count(
        jax.jit(lambda x: jax.lax.conv(image, kernel, (1,), "SAME") + x[0, 0]), SQUARE
    )
    assert convolved.unknown == ("conv_general_dilated",) and convolved.flops == 0

    def loop(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] @ x), (0, x))[1] @ x

    assert (
        count(jax.jit(loop), SQUARE).unknown == ("while",)
        and count(jax.jit(loop), SQUARE).flops == ONE
    )
    groups = jnp.array([1, 3])
    ragged = jax.jit(
        lambda x: jax.lax.scan(lambda c, _: (jax.lax.ragged_dot(c, w, groups), None), x, length=2)[
            0
        ]
    )
    w = jnp.ones((2, 4, 4))
    assert count(ragged, SQUARE).unknown == ("ragged_dot_general",)
    assert count(jax.jit(jnp.linalg.inv), SQUARE).unknown == ("custom_linear_solve", "lu")
    called = jax.jit(lambda x: jax.pure_callback(lambda y: y, SQUARE, x))
    assert count(called, SQUARE).unknown == ("pure_callback",)


def test_pallas_kernels_are_named():
    from jax.experimental import pallas as pl

    def kernel(x, out):
        out[...] = (x[...][:, :, None] * x[...]).sum(1)  # a matrix product that is no dot_general

    found = count(jax.jit(lambda x: pl.pallas_call(kernel, out_shape=SQUARE)(x)), SQUARE)
    assert found.unknown == ("pallas_call",) and found.flops == 0


def test_a_loop_without_products_is_harmless():
    found = count(
        jax.jit(lambda x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x)), SQUARE
    )
    assert found.unknown == () and found.flops == 0


def test_largest_array_is_found_inside_programs():
    inner = jax.jit(lambda x: (x[:, None] + x[None]).sum(0))
    found = count(
        jax.jit(lambda x: jax.lax.scan(lambda c, _: (inner(c), None), x, length=9)[0]), SQUARE
    )
    assert found.largest == (64, (4, 4, 4))
    assert (
        count(jax.jit(lambda x: x[0, 0]), jax.ShapeDtypeStruct((99, 99), jnp.float32)).largest[0]
        < 99
    )


def test_wants_a_jitted_function():
    with pytest.raises(ConfigError, match="must be jitted"):
        count(lambda x: x @ x, SQUARE)
