"""A step on eight devices is the step on one: every mesh shape, BLT and token LM, float32.

`pytest -n0 -s tests/parallel/test_equality.py` prints the table.
"""

# Largest difference over the largest value of the same array, after 3 steps at a rate of 1e-2; and of a loss. float32
# has 6e-8; what is left are sums in another order, through 3 steps of Adam. Measured: 3e-6 and 7e-7.
PARAMETERS, LOSS = 2e-5, 4e-6


def test_equal_on_every_mesh(told):
    told = told["steps"]
    print(f"\n{'model':24}{'mesh':28}{'rows at a time':>15}{'parameters':>12}{'loss':>10}")
    for one in told:
        rows = one["device_rows"] or "all"
        print(f"{one['model']:24}{one['mesh']:28}{rows:>15}{one['parameters']:12.1e}{one['loss']:10.1e}")
    meshes = {name: {one["mesh"] for one in told if one["model"] == name} for name in ("BLT", "token LM")}
    assert len(meshes["BLT"]) == len(meshes["token LM"]) == 4
    assert {one["device_rows"] for one in told} > {0} and any("adafactor" in one["model"] for one in told)
    for one in told:
        assert one["moved"] > 1000 * PARAMETERS, "training moves parameters far more than the tolerance"
        assert one["parameters"] < PARAMETERS and one["loss"] < LOSS, one
