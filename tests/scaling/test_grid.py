"""The quickstart's plan: names, order, equal FLOPs."""

import dataclasses

import pytest

from blt_jax.config import ConfigError, Study, build
from blt_jax.scaling import grid
from experiments import quickstart


@pytest.fixture
def study():
    return build(Study, quickstart.get_config().to_dict())


def test_quickstart_plan(study):
    planned = grid.plan(study, grid.assumed_facts(study))
    assert (
        len(planned) == 27 and planned[0].name == "blt-5e10-small-s0" and planned[-1].name == "spacebyte-5e11-large-s0"
    )
    assert len({one.run.model for one in planned[:9]}) == 9, "the distinct programs come first"
    for one in planned:
        assert abs(one.cost["mismatch"]) < 0.05
        assert one.cost["train_flops"]["exact"] == pytest.approx(one.run.budget * (1 + one.cost["mismatch"]))
        assert (one.cost["entropy_model_flops"]["exact"] > 0) == (one.run.family == "blt")


def test_a_budget_below_one_step_is_named(study):
    with pytest.raises(ConfigError, match="blt-1e3-small-s0: budget 1e\\+03 is too small for one step"):
        grid.plan(dataclasses.replace(study, budgets=(1e3,)), grid.assumed_facts(study))


def test_repeated_budgets_are_refused(study):
    with pytest.raises(ConfigError, match="two runs are called blt-5e10-"):
        grid.plan(dataclasses.replace(study, budgets=(5e10, 5e10)), grid.assumed_facts(study))
