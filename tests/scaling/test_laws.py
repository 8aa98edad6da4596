"""All laws of one table: what its columns and rows bear is fitted, the rest refused in a sentence,
nothing raises.
"""

import numpy as np
import pytest

from blt_jax.scaling import all_laws, law_fit


def write(path, rows, columns="family,flops,params,data,patch,bpb"):
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]))
    return path


def grid(families=(("a", 4.0, 1.0), ("b", 4.0, 1.1)), budgets=4, noise=1e-3):
    """Rows of BPB = 0.6 + gain (C / 1e18)^-0.15 at best, three sizes at each budget."""
    rng, rows = np.random.default_rng(0), []
    for family, patch, gain in families:
        for flops in 10.0 ** np.arange(18, 18 + budgets):
            for place in (0.3, 1.0, 3.0):
                params = 0.1 * flops**0.5 * place
                bpb = 0.6 + gain * (flops / 1e18) ** -0.15 + 0.03 * np.log(place) ** 2
                bpb *= np.exp(noise * rng.normal())
                rows.append((family, flops, params, flops * patch / (6 * params), patch, bpb))
    return rows


def words(found):
    return {one.law: (one.families, one.words) for one in found.refused}


def test_a_full_table(tmp_path):
    found = all_laws.fit_all(all_laws.read(write(tmp_path / "p.csv", grid())), draws=20)
    assert found.frontiers.keys() == found.isoflops.keys() == found.chinchillas.keys() == {"a", "b"}
    assert found.best == "a" and [(one.a, one.b) for one in found.crossings] == [("a", "b")]
    assert found.crossings[0].measured == pytest.approx((1e18, 1e21))
    assert all(one.factor.value > 1 for one in found.crossings[0].savings)
    assert words(found) == {
        "patch size": (("a", "b"), "1 different patch sizes; laws with the patch size need three")
    }


def test_three_patch_sizes_have_their_laws(tmp_path):
    families = (("a", 3.0, 1.0), ("b", 4.5, 0.98), ("c", 7.0, 1.0))
    found = all_laws.fit_all(all_laws.read(write(tmp_path / "p.csv", grid(families))), draws=4)
    assert len(found.patch.optima) == 4 and found.answer.budget == 1e21 and not found.refused


def test_columns_that_are_missing(tmp_path):
    rows = [(row[1], row[5]) for row in grid()[:12]]
    table = all_laws.read(
        write(tmp_path / "p.csv", rows, "C,L"), rename={"flops": "C", "loss": "L"}
    )
    found = all_laws.fit_all(table, draws=0)
    assert found.frontiers.keys() == {"all"} and not found.isoflops and found.patch is None
    told = words(found)
    assert "the table has no params (parameters, non-embedding)" in told["Chinchilla"][1]
    assert told["FLOPs saved at equal BPB"][1] == "it takes the frontier laws of two families"
    assert all_laws.measure(tmp_path / "p.csv", {"loss": "L"}) == "loss"
    assert all_laws.measure(tmp_path / "p.csv", {"bpb": "L"}) == "bits per byte"


def test_refusals_of_several_families_are_one_sentence(tmp_path):
    found = all_laws.fit_all(all_laws.read(write(tmp_path / "p.csv", grid(budgets=1))), draws=4)
    told = words(found)
    assert told["frontier"] == (
        ("a", "b"),
        "1 budgets give a point; bpb = e + a flops^-b needs three",
    )
    assert told["Chinchilla"][1].startswith("3 different runs;") and found.isoflops.keys() == {
        "a",
        "b",
    }
    assert not found.crossings and found.best is None


@pytest.mark.parametrize("seed", range(4))
def test_nothing_raises_whatever_the_runs(tmp_path, seed):
    """Holes, losses of pure noise, few runs: fitted or refused, and JSON either way."""
    rng = np.random.default_rng(seed)
    rows = grid((("a", 2.0, 1.0), ("b", 4.0, 1.0), ("c", 8.0, 1.0)), noise=rng.choice([0.0, 0.5]))
    kept = [row for row in rows if rng.random() < rng.choice([0.3, 0.8])] or rows[:1]
    found = all_laws.fit_all(all_laws.read(write(tmp_path / "p.csv", kept)), draws=4)
    assert found.refused or found.patch
    assert set(law_fit.as_json(found)) == {
        field.name for field in all_laws.dataclasses.fields(found)
    }


def test_sizes_that_go_with_the_patch_size_tell_nothing_apart(tmp_path):
    """Six runs at each budget on one line of (log size, log T): no paraboloid, said in words."""
    rows = []
    for patch in (2.0, 3.0, 4.0, 6.0, 8.0, 12.0):
        rows += [
            row for row in grid(((f"t{patch:g}", patch, 1.0),)) if row[2] == 0.1 * row[1] ** 0.5
        ]
    rows = [(family, c, n * patch, d / patch, patch, bpb) for family, c, n, d, patch, bpb in rows]
    found = all_laws.fit_all(all_laws.read(write(tmp_path / "p.csv", rows)), draws=0)
    assert {one.word for one in found.patch.optima} == {
        "needs six different runs, of three sizes and three patch sizes that vary apart"
    }
