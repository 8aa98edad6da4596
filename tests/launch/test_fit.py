"""launch.fit: every law from a table to a printed page and JSON, and one line for what a person got
wrong.
"""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blt_jax.study.report import COLUMNS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A points.csv of our report's columns: three families that cross, 5 budgets x 5 sizes, two
    seeds.
    """
    path, rng = tmp_path_factory.mktemp("fit") / "points.csv", np.random.default_rng(0)
    with path.open("w") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        families = (
            ("blt-ps8", 8.0, 1.00, 0.16),
            ("blt-ps4", 4.0, 0.93, 0.13),
            ("blt-ps6", 6.0, 0.96, 0.15),
        )
        for family, patch, gain, slope in families:
            for budget in np.geomspace(1e18, 1e20, 5):
                for i, place in enumerate((0.25, 0.5, 1, 2, 4)):
                    params = 0.05 * budget**0.5 * place * patch**0.5
                    for seed in (0, 1):
                        bpb = (
                            0.5 + 0.6 * gain * (budget / 1e18) ** -slope + 0.02 * np.log(place) ** 2
                        )
                        writer.writerow(
                            dict.fromkeys(COLUMNS, 0)
                            | {
                                "name": f"{family}-{budget:g}-{i}-s{seed}",
                                "family": family,
                                "size": i,
                                "seed": seed,
                            }
                            | {
                                "budget": budget,
                                "non_embedding_parameters": params,
                                "bytes_per_unit": patch,
                            }
                            | {
                                "train_text_bytes": budget * patch / (6 * params),
                                "train_flops_exact": budget,
                            }
                            | {
                                "train_flops_paper": 0.8 * budget,
                                "bpb": bpb * np.exp(0.001 * rng.normal()),
                            }
                        )
    return path


def fit(*arguments):
    command = [sys.executable, "-m", "launch.fit", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_crossing_of_two_families(table, tmp_path):
    outputs = f"--json={tmp_path / 'o'}", f"--plot={tmp_path / 'o.svg'}"
    code, page, complaint = fit(f"--points={table}", "--law=crossing", "--bootstrap=60", *outputs)
    assert code == 0, complaint
    told = json.loads((tmp_path / "o").read_text())
    assert told["bootstrap"] == {"draws": 60, "seed": 0, "level": 0.9, "over": "runs and seeds"}
    found, truth = told["fits"]["blt-ps8 x blt-ps4"], 1e18 * (1 / 0.93) ** (1 / 0.03)
    assert list(told["fits"])[:3] == ["blt-ps8", "blt-ps4", "blt-ps6"] and (
        tmp_path / "o.svg"
    ).read_text().startswith("<?xml")
    assert found["budgets"][0]["low"] < truth < found["budgets"][0]["high"]
    assert "90% intervals of 60 bootstrap draws over runs and seeds, seed 0" in " ".join(
        page.split()
    )
    assert "blt-ps4 is better at small budgets; they cross at" in " ".join(page.split())


def test_frontier_of_one_family_in_the_papers_flops(table, tmp_path):
    out = tmp_path / "o"
    asked = [
        "--families=blt-ps4",
        "--convention=paper",
        "--bootstrap=20",
        "--seed=7",
        f"--json={out}",
    ]
    code, page, _ = fit(f"--points={table}", "--law=frontier", *asked)
    told = json.loads(out.read_text())
    assert code == 0 and list(told["fits"]) == ["blt-ps4"] and told["bootstrap"]["seed"] == 7
    assert told["fits"]["blt-ps4"]["points"][0]["flops"] == pytest.approx(0.8e18)
    assert told["fits"]["blt-ps4"]["law"]["lack_of_fit"]["seed_rms"] == pytest.approx(
        0.001, rel=0.7
    )
    assert "against the scatter of seeds" in page and "held out 1 row up to" in page


def test_isoflop(table, tmp_path):
    outputs = f"--json={tmp_path / 'o'}", f"--plot={tmp_path / 'o.png'}"
    code, page, _ = fit(f"--points={table}", "--law=isoflop", "--bootstrap=60", *outputs)
    assert (
        code == 0
        and (tmp_path / "o.png").stat().st_size > 10_000
        and page.count("inside the grid") == 15
    )
    for found in json.loads((tmp_path / "o").read_text())["fits"].values():
        exponent = found["params"]["exponents"]["flops"]
        assert exponent["low"] < 0.5 < exponent["high"] and exponent["value"] == pytest.approx(
            0.5, abs=0.02
        )


def test_chinchilla_of_a_plain_table(tmp_path):
    rows = [
        (n, d, 1.7 + 400 / n**0.34 + 900 / d**0.3)
        for n in (1e8, 1e9, 1e10)
        for d in (1e9, 1e10, 1e11)
    ]
    path = tmp_path / "p.csv"
    path.write_text("N,tokens,L\n" + "\n".join(",".join(map(str, row)) for row in rows))
    names = "--columns=params=N,data=tokens,loss=L"
    code, page, complaint = fit(
        f"--points={path}", "--law=chinchilla", names, "--bootstrap=0", f"--json={tmp_path / 'o'}"
    )
    assert code == 0, complaint
    constants = json.loads((tmp_path / "o").read_text())["fits"]["all"]["constants"]
    assert (
        constants["alpha"]["value"] == pytest.approx(0.34, rel=0.01)
        and constants["alpha"]["low"] is None
    )
    assert constants["E"]["value"] == pytest.approx(1.7, rel=0.01) and "N_opt ~ C^" in page


def test_patch_laws_answer_at_an_inference_cost(table, tmp_path):
    asked = [
        "--budget=1e20",
        "--inference=5e8",
        "--bootstrap=4",
        f"--json={tmp_path / 'o'}",
        f"--plot={tmp_path / 'o.svg'}",
    ]
    code, page, complaint = fit(f"--points={table}", "--law=patch", *asked)
    assert code == 0, complaint
    told = json.loads((tmp_path / "o").read_text())["fits"]
    free, asked = told["answers"]
    assert asked["inference"] == 5e8 and asked["data"]["value"] == pytest.approx(1e20 / 1.5e9)
    assert 4 <= asked["patch"]["value"] <= 8 and len(told["patch"]["optima"]) == 5
    assert told["patch"]["params"]["exponents"]["flops"]["value"] == pytest.approx(0.5, abs=0.03)
    assert told["patch"]["params"]["exponents"]["patch"]["value"] == pytest.approx(0.5, abs=0.1)
    assert "best by the joint law" in page and (tmp_path / "o.svg").exists()


@pytest.mark.parametrize(
    "arguments, line",
    [
        (["--law=chinchila"], "error: flag --law=chinchila: value should be one of"),
        (
            ["--law=frontier", "--families=bpe"],
            "error: --families=bpe: .*points.csv has blt-ps8, blt-ps4, blt-ps6",
        ),
        (
            ["--law=crossing", "--families=blt-ps4"],
            "error: .*one family, 'blt-ps4'; a crossing needs two",
        ),
        (["--law=frontier", "--columns=bpb"], "error: --columns='bpb': must be FIELD=COLUMN"),
        (
            ["--law=frontier", "--columns=bpb=loss"],
            "error: .*no column 'loss', asked for as bpb; found: name, family",
        ),
        (
            ["--law=patch", "--families=blt-ps4"],
            "error: .*1 different patch sizes; laws with the patch size need three",
        ),
        (["--law=isoflop", "--plot=x.gif"], "error: --plot=x.gif: must end in .svg, .png or .pdf"),
        (
            ["--law=isoflop", "--json=absent/x"],
            "error: --json=absent/x: there is no folder 'absent'",
        ),
        (["--law=isoflop", "--drop_highest=200"], "error: .*cannot leave out 200 of 150 rows"),
    ],
)
def test_mistakes_are_one_line(table, arguments, line):
    code, _, complaint = fit(f"--points={table}", *arguments)
    assert code == 2 and len(complaint.strip().splitlines()) == 1
    assert re.match(line, complaint), complaint


def test_a_bad_row_is_named(table, tmp_path):
    lines = table.read_text().splitlines()
    lines[3] = ",".join(lines[3].split(",")[:-1]) + ",nan"
    (tmp_path / "p.csv").write_text("\n".join(lines))
    code, _, complaint = fit(f"--points={tmp_path / 'p.csv'}", "--law=frontier")
    assert code == 2 and "p.csv: line 4, bpb = 'nan': must be finite and positive" in complaint
