"""Generation by a model that lies over eight devices, BLT and token LM: the ids of the model on one
device.
"""

import pytest

from tests import eight

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told():
    """What `eight_devices` prints, by model and mesh."""
    return {(one["model"], one["mesh"]): one for one in eight.told("tests.infer.eight_devices")}


@pytest.mark.parametrize("mesh", ["fsdp=8", "tensor=4 x data=2"])
@pytest.mark.parametrize("model", ["BLT", "token LM"])
def test_a_split_model_writes_the_same(told, model, mesh):
    alone, split = told[model, "one device"], told[model, mesh]
    assert alone["split"] == 0 < split["split"]
    assert len({tuple(row) for row in alone["ids"]}) == len(alone["ids"]) and all(
        len(set(r)) > 3 for r in alone["ids"]
    )
    assert split["ids"] == alone["ids"]
