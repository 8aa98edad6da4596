"""Tables of runs: fields under any name, what is derived, and one line with file, line and field
for what is wrong.
"""

import json

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import points

CSV = "params,data,loss\n1e6,2e9,3.5\n2e6,1e9,3.25\n"
REPORT = (
    "name,family,size,seed,budget,non_embedding_parameters,bytes_per_unit,train_text_bytes,train_flops_exact,"
    "train_flops_paper,entropy_model_flops_exact,entropy_model_flops_paper,bpb\n"
    "a-s0,a,s,0,5e10,100,4.5,2e6,5.1e10,4e10,1e9,1e9,3.5\na-s1,a,s,1,5e10,100,4.5,2.1e6,5.1e10,4e10,1e9,1e9,3.6\n"
    "b-s0,b,s,0,5e10,100,3.5,1e6,4.9e10,4e10,0,0,3.4\n"
)


@pytest.fixture
def write(tmp_path):
    def write(text, name="points.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_plain_table(write):
    own = points.load(write(CSV), ("params", "data", "loss"))
    assert len(own) == 2 and own["loss"].tolist() == [3.5, 3.25] and own.families() == ["all"]
    assert own["flops"].tolist() == [1.2e16, 1.2e16] and own.notes == ("flops = 6 params x data",)
    assert own.cell.tolist() == [0, 1] and own.budget.tolist() == [1.2e16, 1.2e16]


def test_our_report(write):
    own = points.load(write(REPORT), ("params", "data", "flops", "loss", "patch"))
    assert own.families() == ["a", "b"] and own.cell.tolist() == [0, 0, 1], (
        "seeds of one run share a cell"
    )
    assert own["flops"].tolist() == [5.1e10, 5.1e10, 4.9e10] and own.budget.tolist() == [5e10] * 3
    assert own["loss"].tolist() == [3.5, 3.6, 3.4] and own["patch"].tolist() == [4.5, 4.5, 3.5]
    assert own.of("b")["data"].tolist() == [1e6]
    paper = points.load(write(REPORT), ("flops", "bpb"), convention="paper", entropy_model=True)
    assert (
        paper["flops"].tolist() == [4.1e10, 4.1e10, 4e10]
        and "entropy_model_flops_paper" in paper.notes[0]
    )


def test_other_names_json_and_derived_data(write):
    rows = [{"N": 100, "C": 6e5, "L": 3.0}, {"N": 200, "C": 6e5, "L": 2.0}]
    names = {"params": "N", "flops": "C", "loss": "L"}
    own = points.load(write(json.dumps(rows), "p.json"), ("params", "data", "loss"), rename=names)
    assert own["data"].tolist() == [1000, 500] and own.notes == ("data = flops / (6 params)",)
    with pytest.raises(ConfigError, match="no column 'C2', asked for as flops; found: N, C, L"):
        points.load(write(json.dumps(rows), "p.json"), ("params",), rename={"flops": "C2"})
    with pytest.raises(ConfigError, match="unknown field 'size'"):
        points.load(write(json.dumps(rows), "p.json"), ("params",), rename={"size": "N"})


def test_budgets_of_nearly_equal_flops():
    flops = np.array([1.02e18, 1e19, 0.98e18, 1e18, 1.05e19])
    grouped = points.grouped(flops, points.SAME_BUDGET)
    assert len(set(grouped)) == 2 and grouped[0] == grouped[2] == grouped[3] == pytest.approx(
        1e18, rel=1e-3
    )


def test_highest_rows_are_left_out(write):
    own = points.load(write(CSV), ("params", "data", "loss")).without_highest(1, "loss")
    assert own["loss"].tolist() == [3.25] and "left out: the 1 rows of highest loss" in own.notes
    with pytest.raises(ConfigError, match="cannot leave out 1 of 1"):
        own.without_highest(1, "loss")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            CSV.replace("3.25", "nan"),
            r"points.csv: line 3, loss = 'nan': must be finite and positive",
        ),
        (CSV.replace("3.25", ""), r"line 3, loss = '': must be a number"),
        (CSV.replace("2e9", "-1"), r"line 2, data = '-1': must be finite and positive"),
        (
            "params,data\n1,2\n",
            r"no column for loss \(.*\); found: params, data; name yours by --columns=loss=COLUMN",
        ),
        ("params,data,loss\n", r"points.csv: no rows"),
        ("params,data,loss\n1e6,2e9\n", r"line 2, loss = None: must be a number"),
    ],
)
def test_what_is_wrong_is_one_line(write, text, message):
    with pytest.raises(ConfigError, match=message) as raised:
        points.load(write(text), ("params", "data", "loss"))
    assert "\n" not in str(raised.value)


def test_files_that_are_no_tables(write, tmp_path):
    with pytest.raises(ConfigError, match="absent.csv: cannot be read: No such file"):
        points.load(tmp_path / "absent.csv", ("loss",))
    with pytest.raises(ConfigError, match="p.json: line 1: not JSON"):
        points.load(write("{", "p.json"), ("loss",))
    with pytest.raises(ConfigError, match="must be a list of records"):
        points.load(write("{}", "p.json"), ("loss",))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        points.load(tmp_path / "b.csv", ("loss",))
