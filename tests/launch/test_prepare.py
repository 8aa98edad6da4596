"""A study prepared and planned from Python, in silence; several tokenizers; calibrations kept."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from blt_jax.config import ConfigError, Data, Stack, Tokenizer, Train
from blt_jax.data.store import Store, write_entropies
from blt_jax.families.lm.config import Lm
from blt_jax.patching import Patching, calibrate
from blt_jax.record import build
from blt_jax.study import grid, planning, prepare, report
from blt_jax.study.config import EntropyModel, Family, Size, Study
from blt_jax.study.progress import Progress
from experiments import quickstart
from launch import plan, progress_bar
from tests.data.corpus import made

ROOT = Path(__file__).resolve().parents[2]
STACK, WINDOWED = Stack(1, 16, 2), Stack(1, 16, 2, window=8)


def tokens(vocab, tokenizer=None):
    return Family({"s": Size(Lm(STACK, vocab=vocab, unit="token"), 1e-2)}, tokenizer=tokenizer)


class Notes(Progress):
    def __init__(self):
        self.lines, self.tasks = [], []

    def note(self, text):
        self.lines.append(text)

    def bytes(self, what, done, of):
        self.tasks.append((what, done, of))


def texts(folder):
    """Real text that is always there: our own sources, as a JSON-lines file."""
    sources = [path.read_text() for path in sorted((ROOT / "blt_jax").rglob("*.py"))]
    lines = [json.dumps({"text": text}) for text in sources if text]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return str(folder / "text.jsonl")


@pytest.mark.slow
def test_a_study_from_python_prints_nothing(tmp_path, capfd):
    """Prepared, planned, one run trained in this process, reported: no flags, no line printed."""
    blt = build(Family, quickstart.family("blt").to_dict())
    study = Study(
        name="silent",
        families={"blt": dataclasses.replace(blt, sizes={"tiny": blt.sizes["tiny"]})},
        budgets=(2e8,),
        entropy_model=EntropyModel(Size(Lm(WINDOWED), 1e-2), bytes=10_000, rows=2),
        data=Data(texts(tmp_path), max_bytes=40_000, validation_max_bytes=4_000, row_bytes=256),
        train=Train(rows=2),
        noise_bytes=0,
    )
    folder, runs = tmp_path / "study", []

    def train_entropy_model(run, run_folder):
        runs.append(json.loads((run_folder / "config.json").read_text())["name"])
        return planning.train_here(run, run_folder)

    notes = Notes()
    (planned,) = planning.plan_study(study, folder, train_entropy_model, notes)
    assert runs == ["entropy_model"] and planned.fact.measured
    assert notes.lines[-1].startswith("prepared in ") and ("sort", 0, 0) in notes.tasks
    listed = json.loads((folder / "study.json").read_text())["runs"]
    assert [run["name"] for run in listed] == [planned.name]
    assert planning.plan_study(study, folder, train_entropy_model) == [planned]
    assert planning.train_here(planned.run, folder / "runs" / planned.name)
    assert report.write(folder).exists() and runs == ["entropy_model"]
    printed, complaints = capfd.readouterr()
    training = (f"{planned.name}: step", "entropy_model: step")  # the progress of `train` itself
    assert not complaints
    assert not [line for line in printed.splitlines() if not line.startswith(training)]


def test_an_entropy_model_told_to_stop_leaves_no_plan(tmp_path):
    blt = build(Family, quickstart.family("blt").to_dict())
    study = Study(
        name="stopped",
        families={"blt": blt},
        budgets=(1e9,),
        entropy_model=EntropyModel(Size(Lm(WINDOWED), 1e-2)),
        data=Data(texts(tmp_path), max_bytes=40_000, validation_max_bytes=4_000, row_bytes=256),
    )
    folder = tmp_path / "study"
    assert planning.plan_study(study, folder, lambda run, run_folder: False) is None
    assert not (folder / "plan.json").exists()


def test_families_have_tokenizers_of_their_own(tmp_path):
    study = Study(
        name="tokenizers",
        families={
            "shared": tokens(300),
            "again": tokens(300),
            "own": tokens(420, Tokenizer(vocab=420)),
        },
        budgets=(1e9,),
        entropy_model=EntropyModel(Size(Lm(WINDOWED), 1e-2)),
        data=Data(input=texts(tmp_path), row_bytes=256),
        tokenizer=Tokenizer(vocab=300),
    )
    stores, _ = prepare.store(study.data, tmp_path / "store")
    made, told = prepare.tokenizers(study, stores, tmp_path)
    assert made["shared"] is made["again"] and told is None
    assert (made["own"].vocab, made["shared"].vocab) == (420, 300)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("tokenizer.json"))
    assert files == ["tokenizer/own/tokenizer.json", "tokenizer/tokenizer.json"]

    facts = prepare.facts(study, stores, tmp_path / "store", made)
    assert (
        facts["own"].bytes_per_unit
        > facts["shared"].bytes_per_unit
        == facts["again"].bytes_per_unit
    )
    paths = {one.run.family: one.run.tokenizer for one in grid.plan(study, facts)}
    assert (
        paths["own"] == "../../tokenizer/own/tokenizer.json" and paths["shared"] == paths["again"]
    )

    one = dataclasses.replace(study, families={"shared": study.families["shared"]})
    assert prepare.tokenizers(one, stores, tmp_path)[1]["vocab"] == 300


def scored(folder, corpus=0, entropy_model="e0"):
    """A store with random entropies."""
    bare, rng = made(folder, seed=corpus), np.random.default_rng(0)
    write_entropies(
        folder, "train", (rng.exponential(1.0, n + 2) for n in bare.sizes), entropy_model
    )
    return Store(folder, "train")


def test_commands_print_progress(capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "QUIET_SECONDS", -1)
    with progress_bar.Printed() as progress:
        progress.note("train: 3 documents")
        tell = progress.task("read")
        tell(0, 2_000_000)
        tell(1_000_000, 2_000_000)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: 3 documents" and len(printed) == 2
    assert printed[1].startswith("read: 1.0 of 2.0 MB, ") and printed[1].endswith(" s left")


def test_calibrated_anew_only_where_something_changed(tmp_path):
    path, patching = tmp_path / "calibration" / "blt.json", Patching(target=4.5)

    def made_anew(store, patching=patching, weights=None):
        before, notes = path.read_bytes() if path.exists() else b"", Notes()
        calibration = prepare.calibrated("blt", patching, store, path, weights, notes)
        of = dict(corpus=store.fingerprint, entropy_model=store.entropy_fingerprint)
        assert calibrate.load(path, **of) == calibration
        return path.read_bytes() != before, "".join(notes.lines)

    store = scored(tmp_path)
    assert made_anew(store) == (True, "") and made_anew(store) == (False, "")
    again, told = made_anew(scored(tmp_path, entropy_model="e1"))
    assert (
        again
        and "blt: calibrated anew: " in told
        and told.endswith("of entropies e0, the store holds e1")
    )
    other = scored(tmp_path, corpus=5, entropy_model="e1")
    again, told = made_anew(other)
    assert again and f"of corpus {store.fingerprint}, the store holds {other.fingerprint}" in told
    for change in (
        {"weights": {"word2": 2.0}},
        {"patching": Patching(target=6.0), "weights": {"word2": 2.0}},
    ):
        again, told = made_anew(other, **change)
        assert again and told.endswith("its patching or the weights of the sources changed")
        assert made_anew(other, **change) == (False, "")


def test_mixture_in_facts_and_plans(tmp_path, capsys):
    small = build(Family, quickstart.family("blt").to_dict())
    study = Study(
        name="mixture",
        families={"blt": small},
        budgets=(1e10, 4e10),
        entropy_model=EntropyModel(Size(Lm(WINDOWED), 1e-2)),
        data=Data(row_bytes=512, weights="word2=3,word12=0"),
    )
    store = scored(tmp_path)
    stores = {"train": store, "validation": store}
    facts = prepare.facts(study, stores, tmp_path, {})
    planned = grid.plan(study, facts)
    assert planned[0].run.calibration == "../../store/calibration/blt.json"
    whole = {
        s: int(store.sizes[store.source_of == i].sum()) for i, s in enumerate(store.source_names)
    }
    read = {s: w * whole[s] for s, w in {"word2": 3, "word5": 1, "odd": 1, "word12": 0}.items()}
    for one in planned:
        for source, told in one.cost["sources"].items():
            assert told["share"] == pytest.approx(read[source] / sum(read.values()))
            assert told["epochs"] == pytest.approx(
                one.cost["bytes"] * told["share"] / whole[source]
            )
    plan.show_sources(planned)
    printed = capsys.readouterr().out
    assert "word2" in printed and f"{read['word2'] / sum(read.values()):.2%}" in printed
    loaded = calibrate.load(
        tmp_path / "calibration" / "blt.json",
        corpus=store.fingerprint,
        entropy_model=store.entropy_fingerprint,
    )
    assert loaded.weights == {"word2": 3.0, "word12": 0.0} and set(loaded.sources) == {
        "word2",
        "word5",
        "odd",
    }
    unknown = dataclasses.replace(study, data=dataclasses.replace(study.data, weights="word1=2"))
    with pytest.raises(ConfigError, match="no documents of source 'word1'; did you mean 'word12'"):
        prepare.facts(unknown, stores, tmp_path, {})
