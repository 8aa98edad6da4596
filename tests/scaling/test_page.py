"""The page of a study and of a table alone: self-contained, reproducible, with bands where there
are any, and frank.
"""

import csv
import json
import re

import numpy as np
import pytest

from blt_jax.config import ConfigError
from blt_jax.scaling import page
from blt_jax.study import report
from tests.scaling.evaluated import evaluate

FAMILIES = {
    "blt": ("BLT, entropy patches", 4.5, 1.05),
    "space": ("SpaceByte", 6.0, 1.1),
    "bpe": ("BPE tokens", 3.0, 1),
}
SILENT, WARNING = "blt-6e+10-m-s0", "its output no longer matters <"
PARTS = ("encoder", "pooling", "latent", "decoder", "head")


def bpb_of(budget, place, gain, noise):
    return (0.8 + 1.5 * gain * (budget / 1e10) ** -0.2 + 0.04 * np.log(place) ** 2) * np.exp(noise)


def study(folder, budgets=(1e10, 2.5e10, 6e10), seeds=(0,), noise=0.002, left_out=1):
    """Run folders as a sweep leaves them, of known laws: three sizes at each budget; the last runs
    are not done.
    """
    rng, runs = np.random.default_rng(0), []

    def put(path, value):
        path = folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))

    for family, (_, patch, gain) in FAMILIES.items():
        for budget in budgets:
            for size, place in (("s", 0.4), ("m", 1.2), ("l", 3.0)):
                params = int(0.5 * budget**0.5 * place)
                per_byte = budget / 3 / (budget / (6 * params) * patch)
                for seed in seeds:
                    name, text_bytes = (
                        f"{family}-{budget:g}-{size}-s{seed}",
                        int(budget / (3 * per_byte)),
                    )
                    forward = {"total": per_byte} | dict.fromkeys(PARTS, per_byte / 5)
                    entropy = 0.0 if family == "bpe" else 0.3 * budget
                    cost = {"bytes": text_bytes, "bytes_per_unit": patch}
                    cost |= {
                        "parameters": {
                            "non_embedding": params,
                            "total": 2 * params,
                            "hash_tables": params,
                        }
                    }
                    cost |= {"forward_flops_per_byte": {"exact": forward, "paper": forward}}
                    cost |= {"entropy_model_flops": {"exact": entropy, "paper": entropy}}
                    own = {
                        "name": name,
                        "family": family,
                        "size": size,
                        "seed": seed,
                        "budget": budget,
                    }
                    bpb = bpb_of(budget, place, gain, noise * rng.normal())
                    size_D = rng.integers(80, 200, 20)
                    nats = (size_D * np.log(2) * bpb * np.exp(0.05 * rng.normal(size=20))).tolist()
                    put(
                        f"runs/{name}/validation.json",
                        {"documents": {"nats": nats, "text_bytes": size_D.tolist()}},
                    )
                    told = {
                        "steps": 9,
                        "text_bytes": text_bytes,
                        "train_bpb": bpb,
                        "validation": {"bpb": bpb},
                    }
                    told |= {
                        "timing": {"seconds": 1.0},
                        "train_flops": {"exact": budget, "paper": budget},
                    }
                    put(f"runs/{name}/result.json", own | told)
                    lines = [
                        {"text_bytes": text_bytes * i / 9, "bpb": bpb + 3 / i} for i in range(1, 10)
                    ]
                    put(f"runs/{name}/metrics.jsonl", "\n".join(map(json.dumps, lines)))
                    runs.append(own | {"cost": cost})
    for run in runs[len(runs) - left_out :]:
        (folder / "runs" / run["name"] / "result.json").unlink()
    facts = {}
    for family, (label, patch, _) in FAMILIES.items():
        facts[family] = {"label": label, "bytes_per_unit": patch, "index": f"rows/{family}/train"}
        rule = {"rule": "entropy", "target": patch, "threshold": 1.5}
        facts[family]["patching"] = None if family == "bpe" else rule
        slots = 0 if family == "bpe" else 50
        header = {
            "row_patches": slots,
            "byte_waste": 0.01,
            "text_bytes_per_patch": patch,
            "patch_lengths": [0, 3, 9, 2],
        }
        header["sources"] = {"wiki": {"text_bytes": 9000, "positions": 2000, "patches": 40 * slots}}
        put(
            f"store/rows/{family}/train/header.json",
            header | ({"patch_waste": 0.02} if slots else {}),
        )
    corpus = {part: {"text_bytes": 9000, "documents": 9} for part in ("train", "validation")} | {
        "skips": []
    }
    scorer = {"parameters": 100, "bpb": 2.5, "train_flops": {"exact": 1e9, "paper": 1e9}}
    scorer["forward_flops_per_byte"] = {"exact": 2e4, "paper": 2e4}
    plan = {
        "runs": runs,
        "facts": facts,
        "corpus": corpus,
        "entropy_model": scorer,
        "versions": {"python": "3"},
    }
    put("plan.json", plan | {"tokenizer": {"vocab": 512, "bytes_per_token": 3.0}})
    data = {"input": "text.jsonl", "row_bytes": 256}
    put("study.json", {"study": {"name": "made-up", "convention": "exact", "data": data}})
    shown = {"label": "BLT, entropy patches", "starts": [0, 4], "threshold": 1.5}
    put(
        "sample.json",
        {"text": list(b"two words"), "entropies": [0.5] * 9, "families": {"blt": shown}},
    )
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The quickstart's size: three budgets, one seed, one run missing, one with a warning; two
    families evaluated.
    """
    folder = study(tmp_path_factory.mktemp("study"))
    path = folder / "runs" / SILENT / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warning": WARNING}))
    evaluate(folder, ("blt", "bpe"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "DRAWS", 60)
        return report.write(folder).parent


def read(folder):
    html = (folder / "index.html").read_text()
    return (
        html,
        " ".join(re.sub("<[^>]*>", " ", html).split()),
        json.loads((folder / "report.json").read_text()),
    )


def test_the_page_needs_nothing_else(drawn):
    html, text, _ = read(drawn)
    assert "http://" not in html and "https://" not in html and "<script" not in html
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) >= 7 and all(
        one.startswith("data:image/svg+xml;base64,") for one in sources
    )
    pictures = {path.stem for path in drawn.glob("*.svg")}
    assert pictures == {path.stem for path in drawn.glob("*.png")} and len(pictures) == len(sources)
    assert {
        "scaling",
        "isoflop",
        "best_sizes",
        "patch_lengths",
        "flops_per_byte",
        "training",
        "sample",
    } <= pictures
    assert all(path.stat().st_size < 120_000 for path in drawn.glob("*.svg"))
    assert "1 of 27 runs missing" in text and "bpe-6e+10-l-s0" in text


def test_what_is_first_and_what_is_folded(drawn):
    html, _, _ = read(drawn)
    first, folded = html[: html.index("<details>")], html[html.index("<details>") :]
    assert first.count("<img") == 3 and first.count("<table>") == 3 and folded.count("<img") >= 5
    for summary in (
        "Constants of the laws",
        "Lack of fit",
        "How text is cut",
        "Training",
        "Runs",
        "What it stands on",
    ):
        assert f"<summary>{summary}" in folded


def test_a_warning_stands_with_its_run_and_on_top(drawn):
    html, text, told = read(drawn)
    assert told["warnings"] == {SILENT: WARNING} and text.count("no longer matters &lt;") == 1
    first, folded = html[: html.index("<details>")], html[html.index("<summary>Runs") :]
    assert f"warns of {SILENT}." in " ".join(first.split())
    assert folded.index(SILENT) < folded.index("no longer matters &lt;") < folded.index("bpe-1e+10")


def test_noise_and_thresholds(drawn):
    html, text, told = read(drawn)
    assert (
        html.index("Under noise") < html.index("<details>") < html.index("Along patch thresholds")
    )
    assert "BLT, entropy patches less BPE tokens" in text and "× 1.500" in text
    assert told["evaluations"]["noise"]["Drop"]["blt"]["rise"]["value"] == pytest.approx(1.5)
    assert "arc_easy Drop acc 20 0.5" in text and (drawn / "tasks.svg").exists()
    assert (
        told["evaluations"]["asked"]["blt"]["run"] in text and (drawn / "robustness.png").exists()
    )


def test_one_seed_and_three_budgets_show_no_confident_curve(drawn):
    _, text, told = read(drawn)
    assert (
        "No intervals for BLT, entropy patches" in text
        and "one seed: the noise between runs is not known" in text
    )
    assert "no saving is claimed" in text
    assert (page.DRAWS, page.SEED) == (
        400,
        0,
    ) and "90% intervals of 60 bootstrap draws" in text
    fits = told["laws"]
    assert fits["bootstrap"] == {"draws": 60, "seed": 0, "level": 0.9, "over": "runs and seeds"}
    for law in fits["frontiers"].values():
        assert law["law"]["constants"]["b"]["low"] is None and len(law["points"]) == 3
    assert (
        fits["isoflops"]["blt"]["minima"][0]["params"]["value"] > 0
        and told["envelope"]["blt"][0]["params"] > 0
    )


def test_equal_tables_are_equal_files(tmp_path):
    rows = [
        (c, 0.5 + (c / 1e18) ** -0.1 + 0.001 * i) for i, c in enumerate(np.geomspace(1e18, 1e20, 5))
    ]
    (tmp_path / "p.csv").write_text("flops,bpb\n" + "\n".join(f"{c},{bpb}" for c, bpb in rows))
    one, other = (
        page.write_table(tmp_path / "p.csv", tmp_path / name).parent for name in ("one", "other")
    )
    files = {path.name: path.read_bytes() for path in one.iterdir()}
    assert files.keys() == {"index.html", "report.json", "scaling.svg", "scaling.png"}
    assert files == {path.name: path.read_bytes() for path in other.iterdir()}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """Five budgets and two seeds, as a table alone."""
    folder = study(
        tmp_path_factory.mktemp("seeded"),
        (1e10, 2.5e10, 6e10, 1.5e11, 4e11),
        seeds=(0, 1),
        noise=0.0005,
        left_out=0,
    )
    _, points, _ = report.results.load(folder)
    (folder / "points.csv").write_text(report._csv(points))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "DRAWS", 60)
        return page.write_table(folder / "points.csv", folder / "new" / "out").parent


def test_a_table_alone_gives_the_laws_with_intervals(seeded):
    _, text, told = read(seeded)
    assert "No intervals" not in text and "no interval" not in text and "wiki" not in text
    for family in FAMILIES:
        b = told["laws"]["frontiers"][family]["law"]["constants"]["b"]
        assert b["low"] < 0.2 < b["high"]
        exponent = told["laws"]["isoflops"][family]["params"]["exponents"]["flops"]
        assert exponent["low"] < 0.5 < exponent["high"]
    assert (
        told["laws"]["best"] == "bpe"
        and "To the bits per byte that space has at 4e11 FLOPs, bpe saves 3" in text
    )
    for crossing in told["laws"]["crossings"][:2]:
        gain = {"blt": 1.05, "space": 1.1}[crossing["b"]]
        factor = crossing["savings"][-1]["factor"]
        assert crossing["a"] == "bpe" and factor["low"] < gain**5 < factor["high"]
    assert told["laws"]["patch"]["joint"]["constants"] and "Laws of the patch size" in text
    assert {path.suffix for path in seeded.iterdir()} == {".html", ".json", ".svg", ".png"}


def test_what_cannot_be_fitted_is_said_in_a_sentence(tmp_path):
    table = tmp_path / "two.csv"
    rows = [("a", 1e18, 1.1), ("a", 1e19, 1.0), ("b", 1e18, 1.2), ("b", 1e19, 1.05)]
    table.write_text("family,flops,bpb\n" + "\n".join(",".join(map(str, row)) for row in rows))
    _, text, told = read(page.write_table(table, tmp_path / "out").parent)
    assert "frontier law (a, b): 2 budgets give a point; bpb = e + a flops^-b needs three" in text
    assert (
        "the table has no params" in text
        and told["laws"]["frontiers"] == {}
        and told["laws"]["patch"] is None
    )
    assert "no frontier law for both" in text and not (tmp_path / "out" / "isoflop.svg").exists()


def test_one_family_and_many(tmp_path):
    rows = [
        (f"f{i}", c, 0.5 + (1 + i / 50) * (c / 1e18) ** -0.1)
        for i in range(9)
        for c in np.geomspace(1e18, 1e20, 4)
    ]
    for name, kept in (("one", rows[:4]), ("nine", rows)):
        with (tmp_path / f"{name}.csv").open("w") as file:
            csv.writer(file).writerows([("family", "flops", "bpb"), *kept])
        _, text, told = read(page.write_table(tmp_path / f"{name}.csv", tmp_path / name).parent)
        if name == "one":
            assert "One family: f0" in text
        else:
            assert len(told["laws"]["crossings"]) == 36 and text.count(" against f") == 8 + sum(
                len(one["savings"]) for one in told["laws"]["crossings"]
            ), "the lead has those with the best family, the details have all"


def test_a_bad_table_or_folder_is_one_line(tmp_path):
    (tmp_path / "p.csv").write_text("flops,bpb\n1e18,1\n2e18,-1\n")
    with pytest.raises(ConfigError, match="p.csv: line 3, bpb = '-1': must be finite and positive"):
        page.write_table(tmp_path / "p.csv", tmp_path / "out")
    (tmp_path / "p.csv").write_text("flops,bpb\n1e18,1\n")
    with pytest.raises(ConfigError, match="cannot be a folder"):
        page.write_table(tmp_path / "p.csv", tmp_path / "p.csv")
