"""Runs that are killed at random moments, again and again, end as if nothing had happened: bit for
bit.

    pytest -n0 -s -m faults tests/faults/test_kills.py

is the long form: fifty kills over all families. The short one is part of every test run.
"""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults import runs

STOPS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)  # what a run gets, drawn
CODES = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (42,)}
MOMENTS = ("start", "save", "step", "evaluation")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return runs.study(tmp_path_factory.mktemp("study"))


def undisturbed(study, family):
    folder = study / f"{family}-whole"
    if not folder.exists():
        assert runs.finish(study, family, folder.name) == 0
    return runs.outcome(folder)


def listens(process):
    """Whether a process has come so far as to handle SIGTERM: before our first line Python does
    not.
    """
    try:
        told = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:  # over, or no such system
        return True
    caught = [line for line in told.splitlines() if line.startswith("SigCgt:")]
    return not caught or bool(int(caught[0].split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def until(moment, process, folder, before, rng):
    """Waits for a random point of `moment` in the life of a process that goes on from checkpoint
    `before`.
    """
    if moment == "start":
        return time.sleep(rng.uniform(0.3, 6))  # import, restore, compile
    step = (
        runs.STEPS
        if moment == "evaluation"
        else rng.choice(range(before + runs.SAVES, runs.STEPS + 1, runs.SAVES))
    )
    while process.poll() is None and not list((folder / "checkpoints").glob(f"{step}*")):
        time.sleep(0.001)  # also the folder of a save that is under way counts
    time.sleep(rng.uniform(0, {"save": 0.02, "step": 0.2, "evaluation": 2}[moment]))


def kills(study, family, moments, rng):
    """Kills runs at `moments`, and lets them end. Returns (what they died of and where, runs that
    ended).
    """
    whole, told, ended, moments = undisturbed(study, family), [], 0, list(moments)
    while True:
        name = f"{family}-{ended}"
        before = runs.newest(study / name)
        process = runs.start(study, family, name)
        if moments:
            moment = (
                moments[0] if before < runs.STEPS else "start"
            )  # there is nothing left to train
            until(moment, process, study / name, before, rng)
            sent = rng.choice(STOPS)
            early = sent == signal.SIGTERM and not listens(process)
            process.send_signal(sent)  # does nothing to one that is done
            code = process.wait(120)
            if code:
                unheard = early and code == -signal.SIGTERM
                assert unheard or code in CODES[sent], (
                    f"{name}: {code} at {moment}, see {study / name}.log"
                )
                told.append((moment, sent, code, before, runs.newest(study / name)))
                moments.pop(0)
                continue
        if process.wait(300) == 0:
            assert runs.outcome(study / name) == whole, f"{name} differs after {told}"
            ended += 1
            if not moments:
                return told, ended


def show(family, told, ended):
    by = {number: sum(1 for _, sent, *_ in told if sent == number) for number in set(STOPS)}
    print(
        f"\n{family}: {len(told)} kills ({by[signal.SIGKILL]} SIGKILL, {by[signal.SIGTERM]} "
        "SIGTERM), "
        f"{ended} runs ended, equal to the undisturbed one bit for bit"
    )
    for moment, sent, code, before, after in told:
        print(f"    {moment:10} {sent.name}: exit code {code}, from checkpoint {before} to {after}")


@pytest.mark.slow
def test_killed_and_continued(study):
    show("bytes", *kills(study, "bytes", ("start", "save", "evaluation"), random.Random(1)))


@pytest.mark.faults
@pytest.mark.parametrize("family", runs.FAMILIES)
def test_fifty_kills(study, family):
    rng = random.Random(f"long {family}")
    show(family, *kills(study, family, [rng.choice(MOMENTS) for _ in range(10)], rng))
