"""Engine `gke`: each run of a study as a JobSet on a GKE cluster of TPUs, made by `xpk workload
create`.

STUDY/gke holds what is submitted, to be read and applied by hand (`kubectl apply -f`):

    NAME.yaml       the JobSet of a run, or of `prepare`, as xpk writes it
    resources.json  what was asked for; tells `--status` and `--cancel` which cluster

Kueue queues and places; a JobSet whose hosts exit with 42 or LOST_EXIT_CODE is started again by the
cluster. What is done is read from the run folders, what is queued or running from `kubectl` by the
workloads' names, which follow from the study's folder. That folder lies in a bucket, or on storage
that every host mounts at the same path. Every host runs the command in `blt_jax.engines.host`, which keeps
the log. No jax here.
"""

import dataclasses
import hashlib
import json
import re
import shlex

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import client
from blt_jax.engines.queued import Queued
from blt_jax.runs.preemption import LOST_EXIT_CODE
from blt_jax.storage import write_json

NAME = 28  # characters of a workload's name at most: 40 for xpk, but 28 on clusters of super-slices
PATIENCE = 600  # seconds that xpk may take: it calls gcloud and kubectl a dozen times
NEED = "pip install xpk, in an environment of its own"
JOBSETS = "jobsets.jobset.x-k8s.io"
PREPARE, RESULT = "prepare", "result.json"


@dataclasses.dataclass(frozen=True)
class Resources:
    """What the workloads ask for, flags `--gke.NAME`."""

    cluster: str = ""
    project: str = ""
    zone: str = ""
    tpu_type: str = ""  # the slice of each run as xpk calls it: "v5p-64", "v6e-256", "v5litepod-16"
    # container whose working directory is a checkout (launch/containers/tpu.Dockerfile)
    image: str = ""
    slices: int = 1  # of each run
    # one host for all that comes before the runs: "v6e-1", "n2-standard-32-1"; "": this machine
    prepare_type: str = ""
    namespace: str = "default"
    # after preemptions and lost hosts; a run that fails is not started again
    max_restarts: int = 100
    # more options of `xpk workload create`: "--storage=studies --priority=high --spot"
    extra: str = ""

    def __post_init__(self):
        for name, least in (("slices", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"gke.{name} = {getattr(self, name)}: must be at least {least}")
        wrong = [word for word in shlex.split(self.extra) if not word.startswith("-")]
        if wrong:
            raise ConfigError(
                f"gke.extra: {wrong[0]!r} is no option; options are written --name=value"
            )

    def check(self):
        """Raises ConfigError where something is missing that no cluster has a default for."""
        missing = [
            n for n in ("cluster", "project", "zone", "tpu_type", "image") if not getattr(self, n)
        ]
        if missing:
            raise ConfigError(
                f"--engine=gke needs {' '.join(f'--gke.{name}=' for name in missing)}"
            )


def workload(study, run):
    """Name of a run's workload: valid for Kubernetes, the same from every machine, no other
    study's.
    """
    mark = hashlib.sha256(f"{study.resolve()}/{run}".encode()).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    return f"r-{plain[: NAME - 11].strip('-')}-{mark}"


def write(study, resources):
    """Writes STUDY/gke, without the manifests."""
    folder = study / "gke"
    storage.make_folder(folder)
    write_json(folder / "resources.json", dataclasses.asdict(resources))


def submit(study, resources, job, there=(), dry_run=False):
    """Submits a `Job`, a run or the preparation, keeps its manifest as STUDY/gke/NAME.yaml and
    returns the workload.

    What has ended under its name in `there`, the `queue`, gives way: it would keep the name for
    hours. With `dry_run` only the manifest is made; no cluster is asked. Raises ConfigError where
    xpk fails: for an unknown type of machine before anything is asked of the cluster; and with
    `dry_run` where more than one host would prepare.
    """
    folder, name = study / "gke", workload(study, job.name)
    prepares = job.name == PREPARE
    files = (
        (folder / "prepare.log", study / "plan.json")
        if prepares
        else (job.folder / "log.txt", job.folder / RESULT)
    )
    # `exec`, for xpk's own wrapper passes SIGTERM to its shell alone, and looks at the exit code.
    command = f"exec python -m blt_jax.engines.host {shlex.join(map(str, files))} {job.command}"
    machine = (
        f"--device-type={resources.prepare_type}"
        if prepares
        else f"--tpu-type={resources.tpu_type}"
    )
    if any(one.ended and one.job == name for one in there):
        delete(study, [name])
    with storage.Growing(folder) as growing:
        client.call(
            *("xpk", "workload", "create", f"--workload={name}", machine, f"--command={command}"),
            *(
                f"--cluster={resources.cluster}",
                f"--project={resources.project}",
                f"--zone={resources.zone}",
            ),
            *(f"--namespace={resources.namespace}", f"--docker-image={resources.image}"),
            *(
                f"--num-slices={1 if prepares else resources.slices}",
                f"--max-restarts={resources.max_restarts}",
            ),
            *(
                f"--restart-on-exit-codes={LOST_EXIT_CODE}",
                f"--output-manifest-file={growing.here / job.name}.yaml",
            ),
            *shlex.split(resources.extra),
            *(["--dry-run"] if dry_run else []),
            need=NEED,
            patience=PATIENCE,
        )
        if prepares and dry_run:
            _one_host(growing.here / f"{job.name}.yaml", resources.prepare_type)
    return name


def _one_host(manifest, machine):
    counts = re.findall(
        r"\bparallelism: (\d+)", manifest.read_text()
    )  # a parser of YAML for one number is too much
    hosts = max(map(int, counts), default=1)
    if hosts > 1:
        raise ConfigError(
            f"gke.prepare_type: {machine!r} has {hosts} hosts, and one prepares: v6e-1, "
            "n2-standard-32-1"
        )


def _asked(study):
    """The `Resources` that the study was last submitted with."""
    return Resources(**json.loads((study / "gke" / "resources.json").read_text()))


def queue(study):
    """The study's workloads in the cluster, a list of `Queued`, those that have ended included.

    Raises ConfigError where kubectl fails.
    """
    if not (study / "gke").exists():
        return []
    plan = study / "plan.json"
    runs = json.loads(plan.read_text())["runs"] if plan.exists() else []
    names = {workload(study, run["name"]): ("runs", i) for i, run in enumerate(runs)}
    names[workload(study, PREPARE)] = ("prepare", -1)
    found = json.loads(_kubectl(_asked(study), "get", JOBSETS, "--output=json"))["items"]
    return [
        _queued(one, *names[name]) for one in found if (name := one["metadata"]["name"]) in names
    ]


def _queued(jobset, part, index):
    name, status = jobset["metadata"]["name"], jobset.get("status", {})
    held = [one for one in status.get("conditions", []) if one["status"] == "True"]
    over = next((one for one in held if one["type"] in ("Completed", "Failed")), None)
    slices = sum(one.get("replicas", 1) for one in jobset["spec"]["replicatedJobs"])
    ready = sum(one.get("ready", 0) for one in status.get("replicatedJobsStatus", []))
    if over:
        why = f"{over['type'].lower()}, {over.get('message') or over.get('reason', '')}"
    elif jobset["metadata"].get("deletionTimestamp"):
        why = "being deleted"
    elif jobset["spec"].get("suspend"):
        why = "waits for its slices"
    else:
        why = "" if ready == slices else f"{ready} of {slices} slices are up"
    return Queued(name, part, index, not why, why, ended=over is not None)


def delete(study, names):
    """Takes workloads from the cluster; what runs is told to save first."""
    _kubectl(_asked(study), "delete", JOBSETS, "--ignore-not-found", "--wait=true", *names)


def cancel(study):
    """Takes every workload of the study from the cluster; returns those that had not ended."""
    found = queue(study)
    if found:
        delete(study, [one.job for one in found])
    return [one for one in found if not one.ended]


def _kubectl(resources, *argv):
    """What kubectl prints of the study's own cluster, whichever it is set to."""
    call = lambda *argv: client.call("kubectl", *argv, need="it comes with gcloud")
    region = resources.zone.rpartition("-")[0]
    ours = [
        f"gke_{resources.project}_{place}_{resources.cluster}" for place in (resources.zone, region)
    ]
    known = call("config", "get-contexts", "--output=name").split()
    found = [context for context in ours if context in known]
    if not found:
        raise ConfigError(
            f"kubectl does not know {ours[0]}: once, gcloud container clusters get-credentials "
            f"{resources.cluster} "
            f"--project={resources.project} --location={resources.zone} (of a regional cluster "
            f"{region})"
        )
    return call(f"--context={found[0]}", f"--namespace={resources.namespace}", *argv)
