"""A study through a real Slurm: submitted twice, preempted in the middle of a run of two processes,
with a run that fails; and the files that it would submit, without one.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from blt_jax.config import ConfigError
from blt_jax.engines import Job, Work, slurm
from blt_jax.engines.slurm import Slurm
from blt_jax.runs import log_marks
from blt_jax.study import folder as study_folder
from tests import QUICK
from tests.faults import runs
from tests.launch import cluster as clusters
from tests.launch.test_sweep import corpus, finish, sweep

RUN, BROKEN = "bpe-2e10-small-s0", "bpe-2e10-unstable-s0"
SMALL = """
    config.budgets = (2e10,)  # long enough to be preempted
    del config.families["blt"]  # compiles for long
    sizes = config.families["bpe"].sizes
    sizes["unstable"] = of(Size, model=sizes["small"].model, learning_rate=1e30)
    return config
"""
PATIENCE = 600  # seconds for what takes 20 on a machine with nothing else to do


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = clusters.install()
    if missing:
        pytest.skip(missing)
    with clusters.Cluster(tmp_path_factory.mktemp("slurm")) as one:
        yield one


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    path = corpus(tmp_path)
    path.write_text(
        "from blt_jax.study.config import Size\n"
        + path.read_text().replace("    return config\n", SMALL)
    )
    return path


def given(config, study, *more):
    code, output = finish(sweep(config, study, *more))
    assert code == 0, output
    return output


def queue():
    """{job: state}; array jobs one by one."""
    told = clusters.slurm("squeue", "-h", "--array", "-o", "%i %T").split("\n")
    return dict(line.split() for line in told if line)


def last_mark(study, name):
    return log_marks.last(study / "runs" / name / "log.txt")[0]


@pytest.mark.slow
def test_a_study_through_slurm(cluster, config, tmp_path):
    study = tmp_path / "study"
    options = ("--engine=slurm", "--slurm.nodes=2", "--slurm.partition=low")
    clusters.slurm(
        "scontrol", "update", "partitionname=low", "state=down"
    )  # what is submitted waits
    assert "submitted the preparation as job 1;" in given(config, study, *options)
    assert "the preparation is queued" in given(config, study, *options)
    assert list(queue()) == ["1"]
    assert re.search("^prepare +queued .*job 1: ", given(config, study, "--status"), re.MULTILINE)
    clusters.slurm("scontrol", "update", "partitionname=low", "state=up")

    # One process on each node, until a job of the higher partition wants both.
    metrics = study / "runs" / RUN / "metrics.jsonl"
    cluster.wait(lambda: metrics.exists() and metrics.read_text(), PATIENCE)
    assert "JAX distributed" in (study / "runs" / RUN / "log.txt").read_text()
    clusters.slurm("sbatch", "-p", "high", "-N", "2", "--output=/dev/null", "--wrap", "sleep 1")
    cluster.wait(lambda: last_mark(study, RUN) == "saved", 120)
    run = next(job for job in queue() if job.endswith("_0"))
    cluster.wait(lambda: queue().get(run) == "PENDING", 120)
    assert "stopped at step" in (study / "runs" / RUN / "log.txt").read_text(), (
        "preempted too late to show anything"
    )
    # Given once more: every run is in the queue, none is submitted.
    before = queue()
    assert "submitted runs" not in given(config, study, *options)
    assert queue().keys() <= before.keys()
    line = next(
        line for line in given(config, study, "--status").splitlines() if line.startswith(RUN)
    )
    assert "queued" in line and f"job {run}: " in line and " 1 " in line

    # Slurm waits two minutes with a job that it requeued; we do not.
    clusters.slurm("scontrol", "update", f"jobid={run}", "StartTime=now")
    cluster.wait(lambda: not queue(), PATIENCE)
    table = given(config, study, "--status").splitlines()
    assert any(line.startswith(RUN) and " done " in line for line in table), table
    assert any(
        line.startswith(BROKEN) and " failed " in line and "learning_rate" in line for line in table
    ), table
    assert log_marks.last(study / "slurm" / "report.log")[0] == "finished"
    assert BROKEN in (study / "report" / "report.json").read_text()
    assert "Under noise" in (study / "report" / "index.html").read_text()

    # The same run by hand, undisturbed, with the command of study.json.
    command = {
        one["name"]: one["command"]
        for one in json.loads((study / "study.json").read_text())["runs"]
    }[RUN]
    run, other = study / "runs" / RUN, study / "runs" / "undisturbed"
    other.mkdir()
    shutil.copy(run / "cost.json", other)
    command = command.replace(f"--workdir={run}", f"--workdir={other}")
    by_hand = subprocess.run(
        ["bash", "-c", f"srun -N2 {command}"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert by_hand.returncode == 0, by_hand.stderr[-2000:]
    assert runs.outcome(run) == runs.outcome(other)

    # What failed is submitted on request only; cancelled, it is not queued again.
    code, output = finish(sweep(config, study, *options))
    assert (
        code == 1
        and "submitted" not in output
        and f"failed: {BROKEN}: exit code 1: error: {BROKEN}: loss" in output
    )
    assert "submitted runs 1 as job" in given(config, study, *options, "--retry_failed")
    assert "cancelled 2 jobs" in given(config, study, "--cancel")
    cluster.wait(lambda: not queue(), 120)
    assert "nothing to cancel" in given(config, study, "--cancel")


def test_what_would_be_submitted(config, tmp_path):
    study = tmp_path / "a study"
    more = (
        "--slurm.gpus=8",
        "--slurm.account=lab",
        "--slurm.time=4:00:00",
        "--slurm.at_once=3",
        "--slurm.extra=--mem=9G",
    )
    code, output = finish(sweep(config, study, "--engine=slurm", "--dry_run", *more))
    assert code == 0 and "2 runs" in output, output
    array = (study / "slurm" / "runs.sh").read_text()
    for option in (
        "array=0-1%3",
        "ntasks-per-node=8",
        "gpus-per-node=8",
        "account=lab",
        "time=4:00:00",
        "mem=9G",
    ):
        assert f"\n#SBATCH --{option}\n" in array
    folders = [
        line.split("\t")[0] for line in (study / "slurm" / "runs.tsv").read_text().splitlines()
    ]
    assert folders == [str(study / "runs" / name) for name in (RUN, BROKEN)]
    steps = [
        line
        for line in (study / "slurm" / "report.sh").read_text().splitlines()
        if line.startswith("step ")
    ]
    assert len(steps) == 2
    for step, command in zip(steps, ("report", "evaluate"), strict=True):
        assert f" {shlex.join(study_folder.program(command))} " in step
    for part in ("prepare", "runs", "report"):
        subprocess.run(["bash", "-n", study / "slurm" / f"{part}.sh"], check=True)
    code, output = finish(sweep(config, study, "--engine=slurm", "--slurm.partitoin=x"))
    assert code == 2 and "slurm.partition" in output


# What `step` makes of each exit code of a run, with a `srun` and a `scontrol` of our own.
@pytest.mark.parametrize(
    "code, result, state, ends, mark",
    [
        (0, True, "RUNNING", 0, "finished"),
        (0, False, "RUNNING", 1, "failed"),
        (3, False, "RUNNING", 3, "failed"),
        (42, False, "RUNNING", 42, "saved"),
        (
            75,
            False,
            "RUNNING",
            42,
            "saved",
        ),  # told to stop, one process left before another had heard of it
        (42, False, "COMPLETING", 42, "stopped"),  # cancelled, or queued again by Slurm itself
    ],
)
def test_exit_codes(tmp_path, code, result, state, ends, mark):
    study, bin_ = tmp_path / "it's", tmp_path / "bin"
    run = study / "runs" / "one"
    run.mkdir(parents=True)
    bin_.mkdir()
    made = f"touch {shlex.quote(str(run / 'result.json'))}; " if result else ""
    (bin_ / "srun").write_text(f"#!/bin/bash\n{made}exit {code}\n")
    requeued = tmp_path / "requeued"
    (bin_ / "scontrol").write_text(
        f'#!/bin/bash\n[ "$1" = show ] && echo "   JobState={state} Reason=None" || echo "$@" > {requeued}\n'
    )
    for file in bin_.iterdir():
        file.chmod(0o755)
    job, other = Job("one", ["train", "it's"], run), Job("other", ["true"], study)
    Slurm().write(Work(study, other, [job], [other], ["true"], planned=True))
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}"}
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "9"}
    done = subprocess.run(["bash", study / "slurm" / "runs.sh"], env=environment)
    assert done.returncode == ends and log_marks.last(run / "log.txt")[0] == mark
    assert (requeued.read_text() if requeued.exists() else "") == (
        "requeue 7_0\n" if mark == "saved" else ""
    )
    assert log_marks.preemptions(run / "log.txt") == (mark == "saved")


def test_a_client_that_fails_is_one_line(config, tmp_path):
    (tmp_path / "squeue").write_text(
        "#!/bin/bash\necho 'slurm_load_jobs error: Unable\n to contact' >&2; exit 1\n"
    )
    (tmp_path / "squeue").chmod(0o755)
    for path, words in (
        (
            f"{tmp_path}:{os.environ['PATH']}",
            "error: squeue: slurm_load_jobs error: Unable to contact\n",
        ),
        (
            str(tmp_path / "nothing"),
            "error: there is no squeue on this machine; run --engine=slurm where",
        ),
    ):
        code, output = finish(
            sweep(config, tmp_path / "s", "--engine=slurm", env=os.environ | {"PATH": path})
        )
        assert code == 2 and output.startswith(words) and output.count("\n") == 1, output


FAKE_SBATCH = """#!{python} -IS
import os, pathlib, re, signal, sys, time
queue = pathlib.Path({queue!r})
script = pathlib.Path(sys.argv[-1]).read_text()
array = ([a[8:] for a in sys.argv if a.startswith("--array=")] or ["N/A"])[0]
indices = [i for a in array.split(",") for i in (range(int(a[0]), int(a[-1]) + 1) if a != "N/A" else ["N/A"])]
name = re.search("--job-name=(.*)", script)[1]
number = 1 + sum(1 for _ in open(queue))
time.sleep(float(os.environ.get("SLOW", "0")))
with queue.open("a") as lines:
    lines.writelines(f"{{number}}|{{number}}|{{i}}|{{name}}|PENDING|Priority\\n" for i in indices)
if os.environ.get("KILLED") in script:
    os.kill(os.getppid(), signal.SIGKILL)
print(number)
"""


@pytest.fixture
def scripts(config, tmp_path):
    """A queue of scripts whose arrays have two jobs: (study, `given(killed, **variables)`,
    `parts()` of the queue).
    """
    study, queue = tmp_path / "study", tmp_path / "queue"
    queue.touch()
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("sbatch", FAKE_SBATCH.format(python=sys.executable, queue=str(queue))),
        ("squeue", f"#!/bin/bash\ncat {queue}\n"),
        ("scontrol", "#!/bin/bash\necho 'MaxArraySize            = 2'\n"),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)

    def given(killed="no such script", **variables):
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return sweep(
            config,
            study,
            "--engine=slurm",
            env=os.environ | {"PATH": path, "KILLED": killed, **variables},
        )

    def parts():
        return [
            (line.split("|")[3].rpartition("-")[2], line.split("|")[2])
            for line in queue.read_text().splitlines()
        ]

    return study, given, parts


def test_killed_after_each_submission(scripts):
    """The submitter dies as soon as a job is in the queue: the same command adds what is missing,
    and nothing twice.
    """
    study, given, parts = scripts
    assert finish(given("-prepare"))[0] == -9 and parts() == [("prepare", "N/A")]
    code, output = finish(given())
    assert (
        code == 0 and "the preparation is queued (Priority), job 1" in output and len(parts()) == 1
    )

    # Five runs, one of them done, are three arrays; a name ends with the number of its array's
    # first run.
    names = (RUN, BROKEN, "third", "fourth", "fifth")
    (study / "plan.json").write_text(json.dumps({"runs": [{"name": name} for name in names]}))
    (study / "runs" / BROKEN).mkdir(parents=True)
    (study / "runs" / BROKEN / "result.json").touch()
    assert finish(given("-runs\n"))[0] == -9 and parts()[1:] == [("runs", "0")]
    assert finish(given("-runs-2\n"))[0] == -9 and parts()[2:] == [("2", "0"), ("2", "1")]
    assert finish(given("-report"))[0] == -9 and parts()[4:] == [("4", "0"), ("report", "N/A")]
    code, output = finish(given())
    assert code == 0 and "submitted" not in output and len(parts()) == 6, output
    line = (study / "slurm" / "runs.tsv").read_text().splitlines()[3]
    script = (study / "slurm" / "runs-2.sh").read_text()
    read = next(line for line in script.splitlines() if line.startswith("IFS="))
    shown = subprocess.run(
        ["bash", "-c", f"SLURM_ARRAY_TASK_ID=1; {read}; echo $folder"],
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == line.split("\t")[0] == str(study / "runs" / "fourth")


def test_submitted_twice_at_once(scripts):
    """The second of two submitters is told of the first, and a third finds what it submitted."""
    study, given, parts = scripts
    first = given(SLOW="3")
    while not (study / "slurm" / "report.sh").exists():
        assert first.poll() is None
        time.sleep(0.01)
    code, output = finish(given())
    assert code == 2 and output.startswith(
        f"error: the study {study} is in use by process {first.pid} on"
    ), output
    assert finish(first)[0] == 0 and "the preparation is queued" in finish(given())[1]
    assert parts() == [("prepare", "N/A")]


def test_spans():
    assert slurm.spans([5, 0, 1, 2]) == "0-2,5" and slurm.spans([3]) == "3"


def test_bad_resources():
    for bad, words in ((dict(nodes=0), "slurm.nodes = 0"), (dict(extra="mem=9G"), "is no option")):
        with pytest.raises(ConfigError, match=words):
            Slurm(**bad)
