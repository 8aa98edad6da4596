"""Exact sizes of the published models, by shape alone; initial values and their spread."""

import jax
import numpy as np
import pytest

from blt_jax.config import Stack
from blt_jax.families import network, preset
from blt_jax.families.blt.config import Blt
from blt_jax.families.lm.config import Lm
from blt_jax.flops import analytic


def count(config):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(network.shapes(config)))


def test_released_1b():
    assert count(preset("released-1b")) == 4_533_879_808


def test_entropy_model():
    assert count(preset("entropy-100m")) == 99_512_064


@pytest.mark.parametrize("name", ["blt-400m", "blt-8b", "llama3-400m", "llama2-8b"])
def test_cost_model_counts_the_same_parameters(name):
    assert analytic.parameters(preset(name))["total"] == count(preset(name))


SMALL = Stack(2, 32, 2, ffn_multiple=8)
LOCAL = Stack(2, 32, 2, window=8, ffn_multiple=8)


@pytest.mark.parametrize("encoder_cross", ["none", "last", "all"])
@pytest.mark.parametrize("decoder_cross", ["none", "first", "all"])
def test_every_form_has_the_counted_parameters(encoder_cross, decoder_cross):
    config = Blt(
        LOCAL, Stack(3, 48, 3, kv_heads=1), LOCAL, encoder_cross=encoder_cross, decoder_cross=decoder_cross,
        hash_sizes=(3, 5), hash_functions=2, hash_rows=64,
    )  # fmt: skip
    assert analytic.parameters(config)["total"] == count(config)


def test_initial_values():
    params = network.init(jax.random.key(0), Lm(Stack(4, 256, 4, ffn_multiple=8)))
    kernel = params["stack"]["layers"]["q"]["kernel"]
    assert abs(kernel.std() * 256**0.5 - 1) < 0.03  # cut at 3 sigma: a little below 1
    assert abs(kernel).max() <= 3 * 256**-0.5
    assert (params["norm"]["scale"] == 1).all()


def test_depth_factor():
    plain = network.init(jax.random.key(0), Lm(SMALL))
    deep = network.init(jax.random.key(0), Lm(SMALL, init_factor="current_depth"))
    for layer, factor in enumerate((2**0.5, 2.0)):
        ratio = (
            plain["stack"]["layers"]["q"]["kernel"][layer]
            / deep["stack"]["layers"]["q"]["kernel"][layer]
        )
        np.testing.assert_allclose(ratio, factor, rtol=1e-5)
    assert np.array_equal(plain["head"]["kernel"], deep["head"]["kernel"])
