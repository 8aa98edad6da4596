"""All laws of one table: what its columns and rows bear is fitted, the rest refused in a sentence,
nothing raises.
"""

import numpy as np
import pytest

from blt_jax.scaling import law_fit, laws, page, points


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


def fit(table, draws):
    """({law: result}, refusals) as in a report."""
    return laws.fit_report(table, laws.Options(draws, best_first=True))


def words(refused):
    return {refusal.law: (refusal.families, refusal.words) for refusal in refused}


def test_a_full_table(tmp_path):
    results, refused = fit(page.read(write(tmp_path / "p.csv", grid())), 20)
    for name in ("frontier", "isoflop", "chinchilla"):
        assert results[name].keys() == {"a", "b"}
    crossing = results["crossing"]["a x b"]
    assert laws.law("frontier").summary(results["frontier"])["best"] == "a"
    assert list(results["crossing"]) == ["a", "b", "a x b"] and crossing.a == "a"
    assert crossing.measured == pytest.approx((1e18, 1e21))
    assert all(saving.factor.value > 1 for saving in crossing.savings)
    assert words(refused) == {
        "patch size": (("a", "b"), "1 different patch sizes; laws with the patch size need three")
    }


def test_pairs_of_families_begin_with_the_best_or_follow_the_table(tmp_path):
    families = (("b", 4.0, 1.1), ("a", 4.0, 1.0))
    table = page.read(write(tmp_path / "p.csv", grid(families)))
    assert "a x b" in fit(table, 0)[0]["crossing"]
    assert "b x a" in laws.fit("crossing", table, laws.Options(0))


def test_three_patch_sizes_have_their_laws(tmp_path):
    families = (("a", 3.0, 1.0), ("b", 4.5, 0.98), ("c", 7.0, 1.0))
    results, refused = fit(page.read(write(tmp_path / "p.csv", grid(families))), 4)
    patch = results["patch"]
    assert len(patch["patch"].optima) == 4 and patch["answers"][0].budget == 1e21 and not refused


def test_columns_that_are_missing(tmp_path):
    rows = [(row[1], row[5]) for row in grid()[:12]]
    table = page.read(write(tmp_path / "p.csv", rows, "C,L"), rename={"flops": "C", "loss": "L"})
    results, refused = fit(table, 0)
    assert results["frontier"].keys() == {"all"} and not results["isoflop"]
    assert results["patch"] is None
    told = words(refused)
    assert "the table has no params (parameters, non-embedding)" in told["Chinchilla"][1]
    assert told["FLOPs saved at equal BPB"][1] == "it takes the frontier laws of two families"
    assert points.measure(tmp_path / "p.csv", {"loss": "L"}) == "loss"
    assert points.measure(tmp_path / "p.csv", {"bpb": "L"}) == "bits per byte"


def test_a_patch_size_that_is_no_number_is_left_out_and_named(tmp_path):
    rows = [(*row[:4], 0 if i == 4 else row[4], row[5]) for i, row in enumerate(grid())]
    table = page.read(write(tmp_path / "p.csv", rows))
    assert "patch" not in table.values and "data" in table.values
    assert table.notes == (
        "without patch: line 6, patch = '0': must be finite and positive; drop or mend the row",
    )


def test_refusals_of_several_families_are_one_sentence(tmp_path):
    results, refused = fit(page.read(write(tmp_path / "p.csv", grid(budgets=1))), 4)
    told = words(refused)
    assert told["frontier"] == (
        ("a", "b"),
        "1 budgets give a point; bpb = e + a flops^-b needs three",
    )
    assert told["Chinchilla"][1].startswith("3 different runs;")
    assert results["isoflop"].keys() == {"a", "b"} and not results["crossing"]
    assert laws.law("frontier").summary(results["frontier"])["best"] is None


REPORT_KEYS = "frontiers isoflops chinchillas crossings patch answer best".split()


@pytest.mark.parametrize("seed", range(4))
def test_nothing_raises_whatever_the_runs(tmp_path, seed):
    """Holes, losses of pure noise, few runs: fitted or refused, and JSON either way."""
    rng = np.random.default_rng(seed)
    rows = grid((("a", 2.0, 1.0), ("b", 4.0, 1.0), ("c", 8.0, 1.0)), noise=rng.choice([0.0, 0.5]))
    kept = [row for row in rows if rng.random() < rng.choice([0.3, 0.8])] or rows[:1]
    results, refused = fit(page.read(write(tmp_path / "p.csv", kept)), 4)
    assert refused or results["patch"]
    summary = {}
    for name, result in results.items():
        summary |= laws.law(name).summary(result)
    assert set(law_fit.as_json(summary)) == set(REPORT_KEYS)


def test_sizes_that_go_with_the_patch_size_tell_nothing_apart(tmp_path):
    """Six runs at each budget on one line of (log size, log T): no paraboloid, said in words."""
    rows = []
    for patch in (2.0, 3.0, 4.0, 6.0, 8.0, 12.0):
        rows += [
            row for row in grid(((f"t{patch:g}", patch, 1.0),)) if row[2] == 0.1 * row[1] ** 0.5
        ]
    rows = [(family, c, n * patch, d / patch, patch, bpb) for family, c, n, d, patch, bpb in rows]
    results, _ = fit(page.read(write(tmp_path / "p.csv", rows)), 0)
    assert {optimum.word for optimum in results["patch"]["patch"].optima} == {
        "needs six different runs, of three sizes and three patch sizes that vary apart"
    }


def test_what_a_law_says_of_itself():
    """Every law of the register is described, and asks for fields that tables have."""
    assert set(laws.options()) == {"ratio", "budget", "inference"}
    for name in laws.LAWS:
        law = laws.law(name)
        assert law.name == name and law.says and law.title and set(law.needs) <= set(points.FIELDS)
        assert f"    {name} " in laws.overview() and law.says in laws.overview()
