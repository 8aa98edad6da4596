"""Frontiers with known truth: constants, crossings within and beyond the budgets, FLOPs saved,
refusals.
"""

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling.laws import crossing, frontier
from blt_jax.scaling.points import Points

A = (0.6, 0.9, 0.20)  # e, a at 1e19 FLOPs, b: worse at first, better in the end
B = (0.6, 0.8, 0.14)
CROSSING = 1e19 * (0.9 / 0.8) ** (1 / 0.06)


def table(family, law, noise=0.001, seeds=2, budgets=7, shift=1.0):
    e, a, b = law
    rng = np.random.default_rng(sum(map(ord, family)))
    grid = np.meshgrid(
        np.geomspace(1e18, 1e22, budgets), [0.25, 1.0, 4.0], np.arange(seeds), indexing="ij"
    )
    flops, place, _ = (one.ravel() for one in grid)
    params = 0.1 * flops**0.5 * place * shift
    bpb = e + a * (flops / 1e19) ** -b + 0.02 * np.log(place) ** 2
    values = {"flops": flops, "params": params, "data": flops / (6 * params), "bpb": bpb}
    values["bpb"] = bpb * np.exp(noise * rng.normal(size=len(flops)))
    cell = np.unique(np.stack([flops, params]), axis=1, return_inverse=True)[1]
    return Points("table.csv", values, np.full(len(flops), family), flops, cell)


def fits(*pairs, **how):
    return [
        frontier.fit_frontier(table(name, law, **how), draws=100, seed=[0, i])
        for i, (name, law) in enumerate(pairs)
    ]


def test_constants_of_the_envelope():
    (found,) = fits(("a", A))
    constants = found.law.constants
    assert (
        constants["e"].holds(0.6)
        and constants["b"].holds(0.20)
        and constants["a"].holds(0.9 * 1e19**0.2)
    )
    assert [point.params for point in found.points] == pytest.approx(
        [0.1 * p.budget**0.5 for p in found.points]
    )
    assert found.law.lack_of_fit.p_value > 0.001 and found.law.lack_of_fit.runs == 7
    assert abs(found.law.held_out.error) < 0.01 and found.law.held_out.budget == pytest.approx(1e22)


def test_at_a_fixed_ratio_of_data_to_params():
    """Ratio 100/6 is where place = 1 here; at four times fewer parameters the ratio is 16 times
    higher.
    """
    found = frontier.fit_frontier(table("a", A), draws=50, seed=0, ratio=100 / 6)
    assert found.basis == "ratio 16.6667" and found.law.constants["b"].holds(0.20)
    assert found.points[3].params == pytest.approx(0.1 * found.points[3].flops ** 0.5, rel=1e-6)
    low = frontier.fit_frontier(table("a", A), draws=0, seed=0, ratio=100)
    assert all(
        one.bpb.value > best.bpb.value for one, best in zip(low.points, found.points, strict=True)
    )
    with pytest.raises(
        ConfigError, match="0 budgets give a point.*ratios of data to params are 1.04 to 267"
    ):
        frontier.fit_frontier(table("a", A), draws=0, seed=0, ratio=1e4)


def test_crossing_within_the_budgets():
    a, b = fits(("a", A), ("b", B))
    found = crossing.crossing(a, b)
    assert len(found.budgets) == 1 and found.budgets[0].value == pytest.approx(CROSSING, rel=0.3)
    assert found.budgets[0].holds(CROSSING) and found.share > 0.9
    assert (
        found.words.startswith("b is better at small budgets")
        and "within the measured" in found.words
    )
    assert found.words.endswith("then a is better")
    swapped = crossing.crossing(b, a)
    assert swapped.budgets[0].value == pytest.approx(found.budgets[0].value)


def test_flops_saved_at_equal_bpb():
    """Same e: a reaches the bpb of b at C with C_a = 1e19 (a_a / a_b)^(1/b_a) (C / 1e19)^(b_b /
    b_a).
    """
    a, b = fits(("a", A), ("b", B))
    for saving in crossing.crossing(a, b).savings:
        needed = 1e19 * (0.9 / 0.8) ** (1 / 0.20) * (saving.budget / 1e19) ** (0.14 / 0.20)
        assert saving.factor.value == pytest.approx(saving.budget / needed, rel=0.1)
        assert saving.factor.holds(saving.budget / needed)
        assert (saving.factor.value > 1) == (
            saving.budget > crossing.crossing(a, b).budgets[0].value
        )


def test_budgets_are_equal_to_a_step():
    a, b = fits(("a", A), ("b", B))
    more = tuple(frontier.dataclasses.replace(p, flops=p.flops * 1.003) for p in b.points)
    for one in (b, frontier.dataclasses.replace(b, points=more)):
        assert (
            len(crossing.crossing(a, one).savings)
            == len(crossing.crossing(one, a).savings)
            == len(b.points)
        )


def test_no_crossing_and_one_beyond_the_budgets():
    apart = crossing.crossing(*fits(("a", A), ("c", (0.9, 0.9, 0.20))))
    assert (
        not apart.budgets and "no crossing within" in apart.words and "a is below c" in apart.words
    )
    late = crossing.crossing(
        *fits(("a", (0.6, 0.9, 0.20)), ("d", (0.6, 0.9 * 10 ** (-0.06 * 3.5), 0.14)), noise=1e-5)
    )
    assert (
        late.budgets[0].value == pytest.approx(10**22.5, rel=0.1)
        and "extrapolated, beyond" in late.words
    )


def test_a_family_that_never_gets_there_saves_nothing():
    low, high = fits(("a", A), ("c", (0.9, 0.9, 0.20)))
    assert crossing.crossing(high, low).savings[-1].factor.value is None


def test_few_budgets():
    with pytest.raises(ConfigError, match="family a: 2 budgets give a point.*needs three"):
        fits(("a", A), budgets=2)
    alone = frontier.fit_frontier(table("a", A, seeds=1, budgets=3), draws=20, seed=0)
    assert alone.law.constants["b"].low is None and alone.points[0].bpb.low is None, (
        "no freedom, no interval"
    )
    seeded = frontier.fit_frontier(table("a", A, seeds=3, budgets=3), draws=20, seed=0)
    assert seeded.law.constants["b"].low is not None


def test_budgets_that_do_not_overlap():
    a, b = fits(("a", A), ("b", B))
    late = frontier.dataclasses.replace(b, points=b.points[-1:])
    early = frontier.dataclasses.replace(a, points=a.points[:2])
    assert "do not overlap" in crossing.crossing(early, late).words
