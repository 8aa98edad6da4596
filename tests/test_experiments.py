"""Every experiment that a person can name plans: matched budgets, distinct names, documented
commands.
"""

import importlib
import re

import pytest

from blt_jax.config import ConfigError
from blt_jax.families.blt.config import Blt
from blt_jax.record import build, fingerprint
from blt_jax.study import grid
from blt_jax.study.config import Study
from experiments import quickstart

ARGUMENTS = {
    "quickstart": ("",),
    "quickstart_rates": ("",),
    "text": ("",),
    "blt_1t": ("",),
    "compute_optimal": ("", "400m,1b"),
    "fixed_inference": ("small", "large"),
    "ablations": ("cross_attention", "hash", "local_layers"),
    "entropy_model": ("1m,64", "100m,512"),
    "compute_optimal_tokenization": ("",),
}


def planned(name, argument=""):
    module = importlib.import_module(f"experiments.{name}")
    study = build(
        Study, (module.get_config(argument) if argument else module.get_config()).to_dict()
    )
    return study, grid.plan(study, grid.assumed_facts(study))


@pytest.mark.parametrize("name, argument", [(n, a) for n, many in ARGUMENTS.items() for a in many])
def test_plans(name, argument):
    study, runs = planned(name, argument)
    limit = 0.03 if name.startswith(("quickstart", "text")) else 0.005
    assert runs and all(abs(one.cost["mismatch"]) < limit for one in runs)
    manual = importlib.import_module(f"experiments.{name}").__doc__
    assert f"--config=experiments/{name}.py" in manual and "{COST}" not in manual


def test_the_quickstart_is_the_study_that_was_recorded():
    """Fields that join later leave old fingerprints as they were: a study's folder can be
    continued.
    """
    assert fingerprint(build(Study, quickstart.get_config().to_dict())) == "35bbc849b0db89dc"


def test_compute_optimal_is_equal_flops_and_equal_latent_models():
    _, runs = planned("compute_optimal")
    assert len({one.run.family for one in runs}) == 10
    for size in ("400m", "8b"):
        of_size = [one for one in runs if one.run.size == size]
        assert len(of_size) == 10 and len({one.run.budget for one in of_size}) == 1
        latent = {getattr(one.run.model, "latent", None) or one.run.model.stack for one in of_size}
        assert len(latent) == 1
    llama = next(one for one in runs if one.run.family == "llama3" and one.run.size == "400m")
    assert 45e9 < llama.cost["bytes"] < 55e9  # docs/blt.md, section 11.2: 50B bytes


@pytest.mark.parametrize("group, cost", [("small", 3.1e8), ("large", 2.1e9)])
def test_fixed_inference_costs_the_same(group, cost):
    _, runs = planned("fixed_inference", group)
    for one in runs:
        assert one.cost["forward_flops_per_byte"]["paper"]["total"] == pytest.approx(
            cost, rel=0.005
        )
    at = {}
    for one in runs:
        at.setdefault(one.run.budget, []).append(one.cost["bytes"])
    assert all(max(equal) < 1.01 * min(equal) for equal in at.values()), (
        "equal budgets are equal bytes"
    )
    assert {one.run.model.encoder.layers for one in runs if isinstance(one.run.model, Blt)} == {
        1,
        3,
    }


def test_ablations_read_the_same_bytes():
    for table in ARGUMENTS["ablations"]:
        _, runs = planned("ablations", table)
        assert all(one.cost["bytes"] == pytest.approx(100e9, rel=0.001) for one in runs)


def test_tokenization_grid():
    """Each isoFLOP curve has sizes on both sides of the optimum; compression from 2 to 16;
    tokenizers of their own.
    """
    study, runs = planned("compute_optimal_tokenization")
    units = {one.cost["bytes_per_unit"] for one in runs if one.cost["unit"] == "patch"}
    assert min(units) == 2 and max(units) == 16
    curves = {}
    for one in runs:
        ratio = one.cost["bytes"] / one.cost["parameters"]["latent"]
        curves.setdefault((one.run.family, one.run.budget), []).append(ratio)
    assert {budget for _, budget in curves} == {1e18, 1e19, 1e20, 1e21}
    short = [key for key, ratios in curves.items() if len(ratios) < 3]
    assert not short, short
    assert all(min(r) < 60 < max(r) for r in curves.values()), [
        k for k, r in curves.items() if not min(r) < 60 < max(r)
    ]
    paths = {one.run.family: one.run.tokenizer for one in runs if one.cost["unit"] == "token"}
    assert len(set(paths.values())) == 5
    assert all(
        re.fullmatch(rf"../../tokenizer/{family}/tokenizer.json", path)
        for family, path in paths.items()
    )


def test_an_entropy_model_without_a_window_is_refused_before_it_is_trained():
    config = quickstart.get_config()
    config.entropy_model.size.model.stack.window = 0
    with pytest.raises(ConfigError, match=r"needs a window \(stack.window\)"):
        build(Study, config.to_dict())
    del config.families["blt"]  # no other family reads entropies
    build(Study, config.to_dict())
