"""A law that somebody adds: one file and one line, and the commands fit, print, draw and report it."""

import json
import re

import numpy as np
import pytest

from tests import newcomer

LAW = '''"""BPB = c - s log10(C): a straight line in the log of training FLOPs."""

import dataclasses

import numpy as np

from blt_jax.scaling import bootstrap, laws, tables
from blt_jax.scaling.bootstrap import Estimate


@dataclasses.dataclass(frozen=True)
class Line:
    constant: Estimate
    slope: Estimate


class Toy(laws.FamilyLaw):
    name = "toy"
    title = "toy"
    says = "BPB falls by the same amount with every factor of FLOPs"
    needs = ("flops", "bpb")
    options = {"unit": "FLOPs at which the constant is read."}

    def fit_family(self, own, options, seed):
        x_M = np.log10(own["flops"] / (options.get("unit") or 1.0))
        weights_RxM = bootstrap.weights(own.cell, 2, options.draws, np.random.default_rng(seed))
        lines = [np.polyfit(x_M, own["bpb"], 1, w=np.sqrt(w)) for w in (1 + 0 * x_M, *weights_RxM)]
        slope_R, constant_R = np.array(lines).T
        return Line(
            bootstrap.estimate(constant_R[0], constant_R[1:]),
            bootstrap.estimate(-slope_R[0], -slope_R[1:]),
        )

    def show(self, result, view):
        return [
            tables.constants(
                f"{view.label(family)}: BPB = c - s log10(C)", {"c": line.constant, "s": line.slope}
            )
            for family, line in result.items()
        ]

    def figure(self, result, view):
        from blt_jax.scaling import figures

        with figures.paper():
            figure, [[axis]] = figures.panels(figures.WIDTH, 3)
            for family in result:
                own, look = view.table.of(family), view.looks[family]
                axis.plot(own["flops"], own["bpb"], look.marker, color=look.colour)
            figures.log_axis(axis, "x", "{:.0e}".format)
        return figure
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout with the law, and a table of runs that follow it: slope 0.1 and 0.2."""
    folder = newcomer.checkout(
        tmp_path_factory.mktemp("newcomer"),
        "blt_jax/scaling/laws/toy.py",
        LAW,
        "blt_jax/scaling/laws/__init__.py",
        '"patch": "blt_jax.scaling.laws.patch',
        '    "toy": "blt_jax.scaling.laws.toy:Toy",',
    )
    rng, lines = np.random.default_rng(0), ["family,flops,bpb"]
    for family, slope in (("a", 0.1), ("b", 0.2)):
        for flops in np.geomspace(1e18, 1e21, 8):
            bpb = 2 - slope * np.log10(flops / 1e18) + 0.002 * rng.normal()
            lines.append(f"{family},{flops:g},{bpb}")
    (folder / "runs.csv").write_text("\n".join(lines))
    return folder


def test_launch_fit_knows_it(copy):
    outputs = "--json=fit.json", "--plot=fit.svg"
    printed = newcomer.run(
        copy, "fit", "--points=runs.csv", "--law=toy", "--unit=1e18", "--bootstrap=50", *outputs
    )
    fits = json.loads((copy / "fit.json").read_text())["fits"]
    for family, slope in (("a", 0.1), ("b", 0.2)):
        assert fits[family]["slope"]["value"] == pytest.approx(slope, abs=0.002)
        assert fits[family]["slope"]["low"] < fits[family]["slope"]["high"]
        assert fits[family]["constant"]["value"] == pytest.approx(2, abs=0.01)
        assert f"{family}: BPB = c - s log10(C)" in printed
    assert (copy / "fit.svg").read_text().startswith("<?xml")
    told = newcomer.run(copy, "fit", "--help")
    assert "toy         flops, bpb" in told and "--unit: FLOPs at which the constant" in told


def test_the_report_shows_it(copy):
    newcomer.run(copy, "report", "--points=runs.csv", "--output=out")
    html = (copy / "out" / "index.html").read_text()
    part = html[html.index("<summary>BPB falls by the same amount") :]
    part = part[: part.index("</details>")]
    text = " ".join(re.sub("<[^>]*>", " ", part).split())
    assert 'src="data:image/svg+xml' in part and (copy / "out" / "toy.png").exists()
    assert text.count("BPB = c - s log10(C) value 90% interval c") == 2
    laws = json.loads((copy / "out" / "report.json").read_text())["laws"]
    assert laws["toy"]["b"]["slope"]["value"] == pytest.approx(0.2, abs=0.01)
    assert laws["frontiers"].keys() == {"a", "b"}
