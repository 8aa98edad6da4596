"""Minima by budget: inside, outside, robust to one bad run; power laws through them with known
truth.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import parabola, points
from blt_jax.scaling.laws import isoflop
from blt_jax.scaling.points import Points
from blt_jax.scaling.power_law import power_law, robust_linear

DATA = Path(__file__).resolve().parents[3] / "shared/data/scaling/cs336_isoflops_synthetic.json"


def test_minimum_inside_and_outside():
    sizes = np.array([1e5, 4e5, 1e6, 4e6])
    inside = parabola.minimum(sizes, 2 + (np.log(sizes) - np.log(5e5)) ** 2)
    assert inside.parameters == pytest.approx(5e5, rel=1e-6) and inside.bpb == pytest.approx(2)
    assert np.polyval(inside.coefficients, np.log(5e5)) == pytest.approx(2)
    falling = parabola.minimum(sizes, 9 - np.log(sizes) / 3)
    assert falling.parameters is None and "larger" in falling.word
    beyond = parabola.minimum(sizes, 2 + (np.log(sizes) - np.log(6e6)) ** 2)
    assert beyond.parameters is None and "larger" in beyond.word, (
        "a bowl whose bottom no size has reached"
    )
    rising = parabola.minimum(sizes, np.log(sizes))
    assert rising.parameters is None and "smaller" in rising.word
    arch = parabola.minimum(sizes, -((np.log(sizes) - np.log(5e5)) ** 2))
    assert arch.parameters is None, "a maximum is no minimum"
    assert "too few" in parabola.minimum(sizes[:2], [1, 2]).word


def test_one_run_that_diverged_does_not_move_the_minimum():
    sizes = np.geomspace(1e6, 1e8, 9)
    loss = (
        2
        + 0.05 * (np.log(sizes) - np.log(1e7)) ** 2
        + 0.001 * np.random.default_rng(0).normal(size=9)
    )
    loss[7] += 0.5
    plain = np.polyfit(np.log(sizes), loss, 2)
    assert abs(-plain[1] / (2 * plain[0]) - np.log(1e7)) > 0.15, "least squares is moved"
    assert parabola.minimum(sizes, loss).parameters == pytest.approx(1e7, rel=0.03)


def test_robust_linear_leaves_out_missing_rows_and_refuses_too_few():
    x_M = np.arange(6.0)
    y_RxM = np.stack(
        [1 + 2 * x_M, np.where(x_M < 4, 1 + 2 * x_M, np.nan), np.where(x_M < 1, 1.0, np.nan)]
    )
    theta_RxP = robust_linear(np.stack([np.ones(6), x_M], 1), y_RxM)
    np.testing.assert_allclose(theta_RxP[:2], [[1, 2], [1, 2]], atol=1e-9)
    assert np.isnan(theta_RxP[2]).all()


def test_power_law_of_two_features():
    rng = np.random.default_rng(0)
    at = {"flops": np.repeat([1e18, 1e19, 1e20], 4), "patch": np.tile([2.0, 4, 8, 16], 3)}
    y_M = 3e-2 * at["flops"] ** 0.48 * at["patch"] ** -0.7
    law = power_law("params", at, y_M, y_M * np.exp(0.02 * rng.normal(size=(200, 12))), rng)
    assert law.exponents["flops"].value == pytest.approx(
        0.48
    ) and law.constant.value == pytest.approx(3e-2)
    assert law.exponents["patch"].holds(-0.7) and law.rms < 1e-9
    low, value, high = law.band(np.array([1e18, 1e22]), 4.0)
    assert value[0] == pytest.approx(y_M[1]) and high[1] / low[1] > high[0] / low[0] > 1


def table(place, noise=0.0, seeds=1):
    """Runs with minima at N = 0.1 C^0.5, at sizes of `place` times that."""
    flops, place, seed = (
        g.ravel() for g in np.meshgrid(10.0 ** np.arange(18, 22), place, np.arange(seeds))
    )
    params = 0.1 * flops**0.5 * place
    rng = np.random.default_rng(0)
    loss = 1 + 1e3 * flops**-0.16 + 0.03 * np.log(place) ** 2 + noise * rng.normal(size=len(flops))
    values = {"params": params, "data": flops / (6 * params), "loss": loss, "flops": flops}
    cell = np.unique(params, return_inverse=True)[1]
    return Points("table.csv", values, np.full(len(flops), "all"), flops, cell)


def test_power_laws_through_the_minima():
    found = isoflop.fit_isoflop(table([0.25, 0.5, 1, 2, 4], 0.002), draws=200, seed=0)
    assert found.params.exponents["flops"].holds(0.5) and found.data.exponents["flops"].holds(0.5)
    assert found.params.constant.holds(0.1)
    assert found.params.exponents["flops"].value == pytest.approx(0.5, abs=0.02)
    assert all(one.word == "inside the grid" and one.params.share == 1 for one in found.minima)
    assert all(one.params.holds(0.1 * one.budget**0.5) for one in found.minima)
    assert abs(found.held_out.error) < 0.15 and found.held_out.budget == 1e21


def test_minima_outside_the_grid_are_refused_and_carry_no_law():
    found = isoflop.fit_isoflop(table([2, 4, 8, 16]), draws=20, seed=0)
    assert all(one.params.value is None and "smaller" in one.word for one in found.minima)
    assert found.params is None and found.held_out is None


def test_three_sizes_have_no_freedom_until_seeds_give_it():
    exact = isoflop.fit_isoflop(table([0.5, 1, 3]), draws=20, seed=0)
    assert exact.minima[0].params.value is not None and exact.minima[0].params.low is None
    seeded = isoflop.fit_isoflop(table([0.5, 1, 3], 0.002, seeds=3), draws=100, seed=0)
    assert seeded.minima[0].params.low is not None and seeded.params.exponents["flops"].holds(0.5)


def test_two_sizes_are_refused_in_a_line():
    with pytest.raises(ConfigError, match="no budget has three sizes"):
        isoflop.fit_isoflop(table([1, 2]), draws=0, seed=0)
    own = table([0.5, 1, 2])
    cut = own.where((own.budget > 1e18) | (own["params"] > 0.06 * 1e9))
    assert (
        isoflop.fit_isoflop(dataclasses.replace(cut), draws=0, seed=0)
        .minima[0]
        .word.startswith("too few")
    )


@pytest.mark.skipif(not DATA.exists(), reason="the isoFLOP data is not beside this checkout")
def test_a_published_exercise():
    """The synthetic isoFLOP runs of a course: every minimum inside, and the last is foretold within
    1%.
    """
    names = {"params": "parameters", "flops": "compute_budget", "loss": "final_loss"}
    found = isoflop.fit_isoflop(
        points.load(DATA, ("params", "data", "loss"), rename=names), draws=50, seed=0
    )
    assert len(found.minima) == 9 and all(one.word == "inside the grid" for one in found.minima)
    assert abs(found.held_out.error) < 0.01 and found.params.rms < 0.02
