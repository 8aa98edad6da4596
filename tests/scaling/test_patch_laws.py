"""Laws with the mean patch size on runs of known truth: optima, powers, the joint law, and what it
answers.
"""

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling.laws import patch as patch_laws
from blt_jax.scaling.points import Points

TRUTH = {"E": 0.5, "A": 60.0, "alpha": 0.33, "gamma": 0.05, "B": 90.0, "beta": 0.30, "delta": 0.02}
TRUTH |= {"H": 0.008, "eta": 0.8}
PATCHES = (2, 3, 4, 6, 8, 12, 16)
SIZE_X = np.geomspace(1e6, 1e12, 4001)


def cost(params, patch):
    """Forward FLOPs per byte: a latent model once per patch, local models at every byte."""
    return 2 * params / patch + 40 * params**0.6


def loss(params, patch, data):
    t = TRUTH
    size = t["A"] * patch ** t["gamma"] / params ** t["alpha"]
    return (
        t["E"]
        + size
        + t["B"] * patch ** t["delta"] / data ** t["beta"]
        + t["H"] * patch ** t["eta"]
    )


def best_size(budget, patch):
    return SIZE_X[loss(SIZE_X, patch, budget / (3 * cost(SIZE_X, patch))).argmin()]


def best(budget, inference=None):
    """(params, patch) of the lowest loss, by search."""
    patches = np.geomspace(1.5, 20, 700)
    if inference is None:
        params = np.array([best_size(budget, patch) for patch in patches])
    else:
        params = np.array([np.interp(inference, cost(SIZE_X, patch), SIZE_X) for patch in patches])
    at = loss(params, patches, budget / (3 * cost(params, patches))).argmin()
    return params[at], patches[at]


def table(noise=0.002, budgets=(1e18, 1e19, 1e20), places=(0.25, 0.5, 1, 2, 4)):
    rng, rows = np.random.default_rng(0), []
    for budget in budgets:
        for patch in PATCHES:
            for place in places:
                params = best_size(budget, patch) * place
                rows.append((budget, params, patch, budget / (3 * cost(params, patch))))
    flops, params, patch, data = np.array(rows).T
    values = {"flops": flops, "params": params, "patch": patch, "data": data}
    values["loss"] = loss(params, patch, data) * np.exp(noise * rng.normal(size=len(flops)))
    return Points("table.csv", values, np.full(len(flops), "all"), flops, np.arange(len(flops)))


@pytest.fixture(scope="module")
def found():
    return patch_laws.fit_patch_laws(table(), draws=60, seed=0)


def test_optima_of_the_paraboloids(found):
    """A paraboloid is only near the truth: the patch size to a tenth, the size to a fifth."""
    for one in found.optima:
        params, patch = best(one.budget)
        assert one.word == "inside the runs" and one.runs == 35
        assert one.patch.value == pytest.approx(
            patch, rel=0.15
        ) and one.params.value == pytest.approx(params, rel=0.2)
        assert one.patch.low < one.patch.value < one.patch.high
    assert found.patch.exponents["flops"].high < 0, "the best patch shrinks with the budget"


def test_powers_of_size_and_bytes(found):
    budgets, patches = (grid.ravel() for grid in np.meshgrid((1e18, 1e19, 1e20), PATCHES))
    params = np.array([best_size(c, t) for c, t in zip(budgets, patches, strict=True)])
    data = budgets / (3 * cost(params, patches))
    logs = np.stack([np.ones(21), np.log(budgets), np.log(patches)], 1)
    for law, truth in ((found.params, params), (found.data, data)):
        _, of_budget, of_patch = np.linalg.lstsq(logs, np.log(truth), rcond=None)[0]
        assert (
            law.points == 21
            and law.exponents["flops"].holds(of_budget)
            and law.exponents["patch"].holds(of_patch)
        )
        assert law.predict(1e19, 4.0) == pytest.approx(
            truth[(budgets == 1e19) & (patches == 4)][0], rel=0.1
        )
    assert abs(found.held_out.error) < 0.15 and found.held_out.runs == 7


def test_joint_law_and_cost(found):
    for name in ("E", "A", "B", "H", "alpha", "beta", "eta"):
        assert found.joint.constants[name].holds(TRUTH[name]), name
    assert abs(found.joint.constants["gamma"].value - TRUTH["gamma"]) < 0.02
    assert abs(found.joint.held_out.error) < 0.005 and found.joint.lack_of_fit.rms == pytest.approx(
        0.002, rel=0.2
    )
    assert found.cost.constants["F"].value == pytest.approx(2, rel=1e-3)
    assert found.cost.constants["z"].value == pytest.approx(0.6, rel=1e-2)


def test_answer_at_a_budget(found):
    params, patch = best(1e20)
    answer = patch_laws.answer(found, 1e20)
    assert answer.patch.value == pytest.approx(
        patch, rel=0.1
    ) and answer.params.value == pytest.approx(params, rel=0.15)
    assert answer.words == "inside the runs" and answer.patch.low < answer.patch.high
    assert answer.loss.value == pytest.approx(
        loss(params, patch, 1e20 / (3 * cost(params, patch))), rel=0.005
    )


def test_answer_at_an_inference_cost_takes_longer_patches(found):
    """A third of the cost per byte of the training optimum: longer patches, a smaller model, more
    bytes.
    """
    free = patch_laws.answer(found, 1e20)
    params, patch = best(1e20, free.inference / 3)
    answer = patch_laws.answer(found, 1e20, free.inference / 3)
    assert answer.patch.value == pytest.approx(
        patch, rel=0.1
    ) and answer.params.value == pytest.approx(params, rel=0.1)
    assert answer.patch.value > free.patch.value and answer.params.value < free.params.value
    assert answer.data.value == pytest.approx(1e20 / free.inference)
    assert cost(answer.params.value, answer.patch.value) == pytest.approx(
        free.inference / 3, rel=0.01
    )


def test_answers_say_where_they_leave_the_runs(found):
    assert "patch size within reach is the best" in patch_laws.answer(found, 1e14).words
    assert "extrapolated" in patch_laws.answer(found, 1e23).words
    with pytest.raises(
        ConfigError, match="inference = 1e\\+20 FLOPs per byte: the runs can tell of"
    ):
        patch_laws.answer(found, 1e20, 1e20)


def test_an_optimum_outside_the_runs_is_refused_in_words():
    own = table()
    short = patch_laws.fit_patch_laws(own.where(own["patch"] >= 6), draws=4, seed=0)
    last = short.optima[-1]
    assert last.patch.value is None and "towards" in last.word and "shorter patches" in last.word
    few = own.where((own["patch"] <= 4) & ((own.budget > 1e18) | (own["patch"] < 4)))
    assert (
        patch_laws.fit_patch_laws(few, draws=0, seed=0)
        .optima[0]
        .word.startswith("needs six different runs")
    )


def test_two_patch_sizes_are_refused_in_a_line():
    own = table()
    with pytest.raises(ConfigError, match="table.csv: 2 different patch sizes; .* need three"):
        patch_laws.fit_patch_laws(own.where(own["patch"] <= 3), draws=0, seed=0)
