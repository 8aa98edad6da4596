"""The table on meshes of no devices: what divides is split, what does not is told once, moments
follow parameters.
"""

import dataclasses

import jax
import pytest
from jax.sharding import PartitionSpec

from blt_jax.parallel import sharding
from blt_jax.train.step import state_shardings
from tests.parallel.eight_devices import ADAM, BLT, run_of


def mesh_of(data, fsdp, tensor):
    names = ("data", "fsdp", "tensor")
    return jax.sharding.AbstractMesh(
        (data, fsdp, tensor), names, axis_types=(jax.sharding.AxisType.Auto,) * 3
    )


@pytest.mark.parametrize(
    "mesh, columns",
    [
        ((2, 2, 2), ("tensor", "data", "fsdp")),
        ((3, 4, 2), ("tensor", "fsdp")),
        ((3, 8, 5), ("fsdp",)),
        ((4, 1, 1), ("data",)),
        ((3, 5, 1), None),
    ],
)
def test_columns_go_over_as_many_devices_as_divide_them(mesh, columns):
    found = sharding.sharding(mesh_of(*mesh), (None, "columns"), (7, 32), "table")
    assert found.spec == PartitionSpec(None, columns)


def test_a_dimension_that_stays_whole_is_told_once_by_name(caplog):
    for _ in range(2):
        found = sharding.sharding(
            mesh_of(1, 1, 5), ("embed", "heads", None), (32, 4, 8), "['q']['kernel']"
        )
    assert found.spec == PartitionSpec(None, None, None)
    assert [record.getMessage() for record in caplog.records] == [
        "['q']['kernel']: axis heads of size 4 is split over none, not all of {'tensor': 5}"
    ]


@pytest.mark.parametrize("tables", ["adam", "adafactor", "lion"])
def test_moments_lie_as_their_parameters(tables):
    mesh = mesh_of(2, 2, 2)
    layout = state_shardings(run_of(BLT, dataclasses.replace(ADAM, tables=tables), 0), mesh)
    specs = {
        jax.tree_util.keystr(p): s.spec
        for p, s in jax.tree_util.tree_leaves_with_path(layout["moments"])
    }
    columns = ("tensor", "data", "fsdp")
    of_tables = {
        name.split(".")[-1].split("[")[0]: spec
        for name, spec in specs.items()
        if "'tables'" in name[-10:]
    }
    assert (
        of_tables
        == {
            "adam": {
                "mu": PartitionSpec(None, None, columns),
                "nu": PartitionSpec(None, None, columns),
            },
            "lion": {"mu": PartitionSpec(None, None, columns)},
            # means over rows keep the columns, means over columns the rows, which are whole
            "adafactor": {
                "v_row": PartitionSpec(None, columns),
                "v_col": PartitionSpec(None, None),
                "v": PartitionSpec(None),
            },
        }[tables]
    )
    gate = next(
        spec for name, spec in specs.items() if "mu" in name and "latent" in name and "gate" in name
    )
    assert (
        gate
        == layout["params"]["latent"]["layers"]["gate"]["kernel"].spec
        == PartitionSpec(None, ("fsdp",), ("tensor",))
    )
