"""A study through a GKE cluster: the manifests that xpk makes, against the schema of a JobSet; what
a host runs, for real; and submission to a cluster of two scripts, killed at every step.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import jsonschema
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import Job, Work, gke
from blt_jax.engines.gke import Gke
from blt_jax.runs import log_marks
from blt_jax.study import folder as study_folder
from tests.bucket import SETTINGS, bucket
from tests.launch.test_slurm import BROKEN, RUN, config  # noqa: F401
from tests.launch.test_sweep import ROOT, finish, sweep

GIVEN = {
    "cluster": "c",
    "project": "p",
    "zone": "us-east5-a",
    "image": "repo/blt:1",
    "tpu_type": "v5p-64",
}
EVALUATE = shlex.join(study_folder.program("evaluate")[1:])
FLAGS = ["--engine=gke", *(f"--gke.{name}={value}" for name, value in GIVEN.items())]
needs_xpk = pytest.mark.skipif(shutil.which("xpk") is None, reason=f"needs xpk: {gke.NEED}")


def strict(schema):
    """A schema that also refuses what it does not name."""
    for name, one in schema["$defs"].items():
        if "actual_instance" in one.get(
            "properties", {}
        ):  # how the models write "a number or a string"
            schema["$defs"][name] = {"type": ["number", "string"]}
        one["additionalProperties"] = False
    schema["additionalProperties"] = False
    # "The name is defaulted to 'failurePolicyRuleN'" by the cluster.
    schema["$defs"]["JobsetV1alpha2FailurePolicyRule"]["required"].remove("name")
    return schema


def one_run(config):  # noqa: F811
    """Leaves the run out that fails."""
    config.write_text(re.sub(".*unstable.*\n", "", config.read_text()))


@pytest.fixture(scope="module")
def schema():
    return strict(JobsetV1alpha2JobSet.model_json_schema())


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def read(path, schema):
    """The manifest's facts: (hosts per slice, slices, topology, container), after it has passed the
    schema.
    """
    manifest = without_nulls(yaml.safe_load(path.read_text()))
    jsonschema.validate(manifest, schema)
    (jobs,) = manifest["spec"]["replicatedJobs"]
    pod = jobs["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    (rule,) = jobs["template"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["operator"] == "NotIn" and {42, 75, 137} <= set(
        rule["onExitCodes"]["values"]
    )
    assert not {0, 1, 2} & set(rule["onExitCodes"]["values"])
    return jobs["template"]["spec"]["parallelism"], jobs["replicas"], topology, container


def runs_of(study, name="blt-1e18-410M-s0"):
    folder = study / "runs" / name
    folder.mkdir(parents=True)
    return Job(name, study_folder.command(study, folder), folder)


@needs_xpk
def test_manifests(tmp_path, schema):
    """And the command of one, as its container would run it: told to stop, it saves, and the
    cluster sees a 42.
    """
    study = tmp_path / "it's {a} study"
    run = runs_of(study)
    for tpu_type, slices, hosts, topology in (
        ("v6e-256", 2, 64, "16x16"),
        ("v5litepod-16", 1, 4, "4x4"),
    ):
        engine = Gke(**GIVEN | dict(tpu_type=tpu_type, slices=slices, extra="--priority=high"))
        engine.write(Work(study, run, [run], [run], [], planned=True), dry_run=True)
        found = read(study / "gke" / f"{run.name}.yaml", schema)
        assert found[:3] == (hosts, slices, topology)
        assert found[3]["image"] == "repo/blt:1" and found[3]["resources"]["limits"] == {
            "google.com/tpu": 4
        }
    manifest = yaml.safe_load((study / "gke" / f"{run.name}.yaml").read_text())
    manifest["spec"]["replicatedJobs"][0]["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(without_nulls(manifest), schema)

    # `python -m blt_jax.engines.host` is ours, what it runs is not.
    python = f'#!/bin/bash\n[ $2 = blt_jax.engines.host ] && exec {sys.executable} "$@"\n'
    python += f"printf '%s\\n' \"$@\" > {tmp_path}/argv\ntrap 'exit 42' TERM\necho ready\n"
    python += "while [ $SECONDS -lt 20 ]; do :; done\n"
    path = programs(tmp_path / "bin", python=python)
    log = run.folder / "log.txt"
    container = subprocess.Popen(
        found[3]["command"], env=os.environ | {"PATH": path}, stdout=subprocess.PIPE
    )
    while not log.exists() or "ready" not in log.read_text():
        assert container.poll() is None
        time.sleep(0.02)
    container.send_signal(signal.SIGTERM)
    assert container.wait(20) == 42 and b"EXIT_CODE=42" in container.stdout.read()
    assert (tmp_path / "argv").read_text().splitlines() == run.elsewhere().argv[1:]
    assert (
        log_marks.last(log) == ("saved", "to be continued: ready")
        and log_marks.preemptions(log) == 1
    )


def programs(folder, **texts):
    """A PATH that begins with these scripts."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@needs_xpk
def test_dry_run_and_a_slice_that_does_not_exist(config, tmp_path, schema):  # noqa: F811
    """Offline: neither gcloud nor kubectl is there to be asked."""
    xpk = programs(tmp_path / "bin", xpk=f'#!/bin/bash\nexec {shutil.which("xpk")} "$@"\n').split(
        ":"
    )[0]
    path = (
        {"PATH": f"{xpk}:/bin"}
        if shutil.which("gcloud", path="/bin") is None
        else {"PATH": f"{xpk}"}
    )
    environment = os.environ | path
    one_run(config)
    code, output = finish(sweep(config, tmp_path / "study", *FLAGS, "--dry_run", env=environment))
    assert code == 0 and "1 runs" in output, output
    *size, container = read(tmp_path / "study" / "gke" / f"{RUN}.yaml", schema)
    assert size == [8, 1, "2x4x4"]
    (config_flag,) = re.findall(r"--config=\S*", container["command"][-1])
    assert config_flag.endswith(f":{tmp_path}/study/runs/{RUN}/config.json")
    assert str(ROOT) not in config_flag  # a checkout of its own
    with bucket(tmp_path / "copies") as name:
        there = {key: os.environ[key] for key in SETTINGS}
        code, output = finish(
            sweep(config, f"{name}/study", *FLAGS, "--dry_run", env=environment | there)
        )
        assert code == 0, output
        *again, container = read(storage.local(f"{name}/study/gke/{RUN}.yaml"), schema)
        assert again == size and f" {name}/study/runs/{RUN}/log.txt " in container["command"][-1]
    code, output = finish(
        sweep(config, tmp_path / "other", *FLAGS, "--gke.tpu_type=v5p-65", env=environment)
    )
    assert code == 2 and output.count("\nerror: ") <= 1 and "v5p-64" in output.splitlines()[-1], (
        output
    )
    assert not (tmp_path / "other" / "plan.json").exists()
    code, output = finish(
        sweep(
            config, tmp_path / "third", *FLAGS, "--gke.prepare_type=v5litepod-16", env=environment
        )
    )
    assert (
        code == 2 and "gke.prepare_type: 'v5litepod-16' has 4 hosts" in output.splitlines()[-1]
    ), output


# A cluster: one file per JobSet, its content what the cluster says of it. `xpk` dies with its
# caller after KILLED.
XPK = """#!{python} -IS
import os, pathlib, signal, subprocess, sys
told = dict(a[2:].split("=", 1) for a in sys.argv[3:] if "=" in a)
if "--dry-run" in sys.argv:
    pathlib.Path(told["output-manifest-file"]).write_text("parallelism: 1")
    sys.exit()
new = pathlib.Path({cluster!r}, told["workload"])
if new.exists():
    sys.exit("it exists already")
new.write_text(os.environ["STATE"] + " of " + told["output-manifest-file"])
if os.environ["KILLED"] in told["output-manifest-file"]:
    os.kill(os.getppid(), signal.SIGKILL)
if os.environ["STATE"] == "now":
    done = subprocess.run(["bash", "-c", told["command"]], capture_output=True, text=True)
    new.write_text("Completed" if done.returncode == 0 else "Failed")
"""
KUBECTL = """#!{python} -IS
import json, pathlib, sys
cluster = pathlib.Path({cluster!r})
if sys.argv[1] == "config":
    print("gke_p_us-east1_other", "gke_p_us-east5_c", sep="\\n")
    sys.exit()
assert sys.argv[1:3] == ["--context=gke_p_us-east5_c", "--namespace=default"], sys.argv
if sys.argv[3] == "delete":
    for name in sys.argv[7:]:
        (cluster / name).unlink()
    sys.exit()
found = []
for path in cluster.iterdir():
    state = path.read_text().split()[0]
    ends = [dict(type=state, status="True", message="max restarts")] if state in ("Failed", "Completed") else []
    ready = dict(name="slice-job", ready=int(state == "running"))
    spec = dict(suspend=state == "waiting", replicatedJobs=[dict(name="slice-job", replicas=1)])
    status = dict(conditions=ends, replicatedJobsStatus=[ready])
    found.append(dict(metadata=dict(name=path.name), spec=spec, status=status))
print(json.dumps(dict(items=found)))
"""


@pytest.fixture
def cluster(tmp_path):
    """(folder of the JobSets, PATH with its clients)."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    how = dict(python=sys.executable, cluster=str(folder))
    python = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    return folder, programs(
        tmp_path / "bin", xpk=XPK.format(**how), kubectl=KUBECTL.format(**how), python=python
    )


def test_killed_after_each_submission(config, cluster, tmp_path):  # noqa: F811
    """The submitter dies as soon as a workload is there: the same command adds what is missing, and
    nothing twice.
    """
    folder, path = cluster
    study, nobody = tmp_path / "study", "no such manifest"

    def given(*more, killed=nobody, state="waiting"):
        environment = os.environ | {"PATH": path, "KILLED": killed, "STATE": state}
        return finish(
            sweep(config, study, *FLAGS, "--gke.prepare_type=v6e-1", *more, env=environment)
        )

    def there():
        return sorted(found.name for found in folder.iterdir())

    prepare, first, second = (gke.workload(study, name) for name in ("prepare", RUN, "other"))
    assert given(killed="prepare")[0] == -9 and there() == [prepare]
    code, output = given()
    assert (
        code == 0 and f"the preparation is queued (waits for its slices), job {prepare}" in output
    ), output
    assert re.search("prepare +queued +job " + prepare, given("--status")[1])

    # The preparation has run.
    (folder / prepare).write_text("Completed")
    (study / "plan.json").write_text(
        json.dumps({"runs": [{"name": name} for name in (RUN, BROKEN, "other")]})
    )
    (study / "runs" / BROKEN).mkdir(parents=True)
    (study / "runs" / BROKEN / "result.json").write_text("{}")
    assert given(killed=RUN)[0] == -9 and there() == sorted([prepare, first])
    code, output = given()
    assert (
        code == 0
        and "submitted other as" in output
        and RUN not in output
        and there() == sorted([prepare, first, second])
    )
    assert "submitted" not in given()[1]

    # What the cluster gave up is submitted again, in its own place.
    (folder / first).write_text("Failed")
    (folder / second).write_text("running")
    lines = {
        line.split()[0]: re.split("  +", line) for line in given("--status")[1].splitlines()[1:]
    }
    assert lines[RUN][1:] == ["queued", f"not submitted; job {first} ended: failed, max restarts"]
    assert lines["other"][1:] == ["running", f"job {second}"] and lines[BROKEN][1:] == ["done"]
    code, output = given()
    assert (
        code == 0
        and f"submitted {RUN} as job {first}" in output
        and "waiting" in (folder / first).read_text()
    )
    assert "cancelled 2 jobs" in given("--cancel")[1] and there() == []
    assert "nothing to cancel" in given("--cancel")[1]

    # A run that failed waits for --retry_failed.
    (study / "runs" / RUN).mkdir()
    (study / "runs" / RUN / "log.txt").write_text(log_marks.line("failed", "exit code 1"))
    given()
    assert there() == [second]
    given("--retry_failed")
    assert there() == sorted([first, second])


@pytest.mark.slow
def test_a_study_from_one_command_given_twice(config, cluster, tmp_path):  # noqa: F811
    """The workloads really run, on this machine, on a study in a bucket: preparation here, a run,
    its report.
    """
    one_run(config)
    with bucket(tmp_path / "copies") as name:
        study = storage.at(f"{name}/study")
        environment = os.environ | {
            "PATH": cluster[1],
            "KILLED": "no such manifest",
            "STATE": "now",
        }
        code, output = finish(sweep(config, study, *FLAGS, env=environment))
        assert code == 0 and f"submitted {RUN} as job" in output, output
        assert log_marks.last(study / "runs" / RUN / "log.txt")[0] == "finished"
        table = finish(sweep(config, study, "--status", env=environment))[1].splitlines()
        assert any(line.startswith(RUN) and " done " in line for line in table), table
        code, output = finish(sweep(config, study, *FLAGS, env=environment))
        assert code == 0 and "submitted" not in output and "report: " in output, output
        assert (
            "not evaluated under noise yet: " in output
            and f"{EVALUATE} --workdir={study} " in output
        ), output
        assert RUN in (study / "report" / "report.json").read_text()


def test_an_unknown_cluster_is_one_line(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", cluster[1])
    job = Job("run", ["true"], tmp_path)
    engine = Gke(**GIVEN | dict(zone="us-west1-a"))
    engine.write(Work(tmp_path, job, [job], [job], [], planned=True))
    with pytest.raises(
        ConfigError, match="does not know gke_p_us-west1-a_c: .* get-credentials c --project=p"
    ):
        engine.queue(tmp_path, ["run"])


def test_names_of_workloads(tmp_path):
    long = "spacebyte-with-a-very-long-name-1.6e+21-8B-s10"
    names = {
        gke.workload(study, run)
        for study in (tmp_path / "a", tmp_path / "b")
        for run in (long, long + "0", "7 B")
    }
    assert len(names) == 6 and all(len(one) <= 28 for one in names)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", one) for one in names)


def test_bad_resources(tmp_path):
    for bad, words in ((dict(slices=0), "gke.slices = 0"), (dict(extra="spot"), "is no option")):
        with pytest.raises(ConfigError, match=words):
            Gke(**bad)
    with pytest.raises(ConfigError, match=r"needs --gke.zone= --gke.image=$"):
        Gke(cluster="c", project="p", tpu_type="v5p-64").check(tmp_path)
