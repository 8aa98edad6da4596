"""A run that is stopped and continued equals the undisturbed run, bit for bit, for every family."""

import dataclasses
import json

import pytest

from blt_jax.config import ConfigError, Optimizer, Profile, Train
from blt_jax.data import pack
from blt_jax.data.store import Store
from blt_jax.patching import Patching, calibrate, drift
from blt_jax.runs.preemption import Undisturbed
from blt_jax.train import bad_steps, latent_gradient
from blt_jax.train.loop import Diverged, train
from tests.faults import runs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return runs.study(tmp_path_factory.mktemp("study"))


def run(kind, train=None, **more):
    """A run of `runs.FAMILIES` in a few steps; `train`, `more`: what differs."""
    settings = dict(steps=8, rows=2, log_every=3, checkpoint_every=100) | (train or {})
    return dataclasses.replace(runs.run(kind), train=Train(**settings), **more)


class StopAt(Undisturbed):
    """Asks to stop at the n-th look."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks <= 0


QUICK = ("bytes", "spacebyte")  # one without patches and one with; the others are slow


@pytest.mark.parametrize(
    "kind",
    [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in runs.FAMILIES],
)
def test_stopped_and_continued_equals_undisturbed(study, kind):
    train(run(kind), study / f"{kind}-whole")
    folder = study / f"{kind}-stopped"
    assert train(run(kind), folder, StopAt(5)) is None and not (folder / "result.json").exists()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "bpb": 0.0}\n{"step": 8, "bp')  # what a kill can leave behind
    train(run(kind), folder)
    assert runs.outcome(folder) == runs.outcome(study / f"{kind}-whole")
    metrics, result, _ = runs.outcome(folder)
    assert (
        [m["step"] for m in metrics] == [3, 6, 8]
        and result["validation"]["bpb"] < 8
        and "warning" not in result
    )
    assert result["validation"]["text_bytes"] == Store(study / "store", "validation").text_bytes


WILD = Optimizer(learning_rate=1e30, warmup_steps=0)


def test_a_loss_that_is_no_number_stops_with_its_step(study):
    with pytest.raises(
        Diverged, match="bytes: loss .* at step [1-8]; lower optimizer.learning_rate"
    ):
        train(run("bytes", optimizer=WILD), study / "wild")


def test_steps_that_are_skipped_are_counted_until_there_are_too_many(study, capsys, monkeypatch):
    monkeypatch.setattr(bad_steps, "IN_A_ROW", 4)
    with pytest.raises(Diverged, match="at step [5-8], after 3 skipped steps"):
        train(run("bytes", optimizer=WILD, train=dict(bad_step="skip")), study / "skipping")
    assert capsys.readouterr().out.count("bytes: skipped: loss ") == 3
    monkeypatch.setattr(bad_steps, "IN_A_ROW", 100)
    result = train(run("bytes", optimizer=WILD, train=dict(bad_step="skip")), study / "skipped")
    assert 3 < result["skipped_steps"] < 8
    last = runs.outcome(study / "skipped")[0][-1]
    assert last["skipped"] == result["skipped_steps"] and last["text_bytes"] == result["text_bytes"]


def test_a_folder_of_another_run_is_refused(study):
    folder = study / "bytes-other"
    assert train(run("bytes"), folder, StopAt(3)) is None
    with pytest.raises(
        ConfigError, match="holds another run \\(train.rows: 2 -> 4\\); choose another --workdir"
    ):
        train(run("bytes", train=dict(rows=4)), folder)
    free = dict(log_every=2, keep=5, checkpoint_every=4)
    assert train(run("bytes", train=free), folder)["steps"] == 8


def test_what_a_run_tells(study, capsys, monkeypatch):
    monkeypatch.setattr(latent_gradient, "ALIVE", 1e9)  # as if the latent model had fallen silent
    result = train(run("blt", train=dict(log_every=4)), study / "told")
    assert result["warning"].startswith("the latent model's gradient is ")
    assert f"blt: warning: {result['warning']}\n" in capsys.readouterr().out
    lines = [
        json.loads(line) for line in (study / "told" / "metrics.jsonl").read_text().splitlines()
    ]
    header = pack.load_header(study / "store" / "rows" / "blt" / "train")
    for line in lines:
        assert 0 <= line["position_waste"] < 0.2 and 0 <= line["patch_waste"] < 1
        assert line["bytes_per_patch"] == pytest.approx(header["text_bytes_per_patch"], rel=0.2)
        squares = sum(norm**2 for norm in line["norms"]["gradient"].values())
        assert line["grad_norm"] == pytest.approx(squares**0.5, rel=1e-5)
        assert {"encoder", "hash", "latent", "decoder"} == set(line["norms"]["weights"])
        speed = line["speed"]
        assert 0 <= speed["wait_seconds"] <= speed["step_seconds"] and speed["memory_bytes"] > 10**8
        assert speed["bytes_per_second"] / speed["patches_per_second"] == pytest.approx(
            line["bytes_per_patch"]
        )
        assert (
            set(speed["flops_per_second"]) == {"paper", "exact", "executed"}
            and "mfu_exact" not in speed
        )
        assert speed["flops_per_second"]["executed"] > speed["flops_per_second"]["exact"]
    assert (study / "told" / "patches.png").stat().st_size > 10_000
    assert any((study / "told" / "tensorboard").iterdir())


def test_a_profile_of_some_steps(study, capsys):
    one = dataclasses.replace(run("bytes"), profile=Profile("3:4"))
    train(one, study / "profiled")
    assert list((study / "profiled" / "profile").rglob("*.xplane.pb"))
    assert "profile of steps 3 to 4" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="profile.steps = '4:3': must be FIRST:LAST"):
        Profile("4:3")


def test_drift_from_the_calibration_is_told(study, capsys, monkeypatch):
    monkeypatch.setattr(drift, "SURE", 2.0)  # a short window
    store, header = (
        Store(study / "store", "train"),
        pack.load_header(study / "store" / "rows" / "blt" / "train"),
    )
    documents = ((store.ids(i), None, "made up") for i in range(len(store)))
    found = calibrate.calibrate(documents, Patching(rule="space"), corpus=store.fingerprint)
    path = study / "calibration.json"
    path.write_text(json.dumps(calibrate.record(found)))
    window = drift.watch(found, header).window
    steps = int(1.2 * window * header["rows"] / header["patches"] / 2)  # of two rows each
    assert steps < 200
    one = dataclasses.replace(
        run("blt", train=dict(steps=steps)), calibration="../calibration.json"
    )
    train(one, study / "steady")
    assert "drift" not in capsys.readouterr().out
    wrong = dataclasses.replace(found, text_bytes_per_patch=found.text_bytes_per_patch * 1.2)
    path.write_text(json.dumps(calibrate.record(wrong)))
    train(one, study / "drifting")
    assert "patches drift: " in capsys.readouterr().out
