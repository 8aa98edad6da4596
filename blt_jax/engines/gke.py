"""Engine `gke`: each run of a study as a JobSet on a GKE cluster of TPUs, made by `xpk workload
create`.

STUDY/gke holds what is submitted, to be read and applied by hand (`kubectl apply -f`):

    NAME.yaml       the JobSet of a run, or of `prepare`, as xpk writes it
    resources.json  the settings; by them `--status` and `--cancel` know the cluster

Kueue queues and places; a JobSet whose hosts exit with 42 or LOST_EXIT_CODE is started again by the
cluster. What is done is read from the run folders, what is queued or running from `kubectl` by the
workloads' names, which follow from the study's folder. That folder lies in a bucket, or on storage
that every host mounts at the same path. Every host runs the command in `blt_jax.engines.host`,
which keeps the log. No jax here.
"""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import Engine, Job, Queued, Work, at_least, client, only_options, required
from blt_jax.runs.preemption import LOST_EXIT_CODE
from blt_jax.storage import write_json

NAME = 28  # characters of a workload's name at most: 40 for xpk, but 28 on clusters of super-slices
PATIENCE = 600  # seconds that xpk may take: it calls gcloud and kubectl a dozen times
NEED = "pip install xpk, in an environment of its own"
JOBSETS = "jobsets.jobset.x-k8s.io"
PREPARE = "prepare"


@dataclasses.dataclass(frozen=True)
class Gke(Engine):
    """What the workloads ask for."""

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

    def __post_init__(self) -> None:
        at_least("gke", self, slices=1, max_restarts=0)
        only_options("gke.extra", shlex.split(self.extra))

    @property
    def prepares(self) -> bool:
        return bool(self.prepare_type)

    def check(self, study: Path) -> None:
        required("gke", self, "cluster", "project", "zone", "tpu_type", "image")

    def write(self, work: Work, dry_run: bool = False) -> str:
        """The manifests too, with `dry_run`; before there is a plan one of each kind, for a slice
        that does not exist is better known now than in an hour.
        """
        folder = work.folder / "gke"
        storage.make_folder(folder)
        write_json(folder / "resources.json", dataclasses.asdict(self))
        jobs = [work.prepare] * self.prepares
        if dry_run:
            jobs += work.runs
        elif not work.planned:
            jobs += work.runs[:1]
        else:
            jobs = []
        for job in jobs:
            self._create(work.folder, job, dry_run=True)
        return f"{folder} holds what would be submitted"

    def submit(
        self, work: Work, jobs: Sequence[Job], queued: Sequence[Queued]
    ) -> Iterator[tuple[str, str]]:
        """What has ended under a job's name gives way: it would keep the name for hours."""
        for job in jobs:
            name = workload(work.folder, job.name)
            if any(other.ended and other.job == name for other in queued):
                _delete(work.folder, [name])
            self._create(work.folder, job)
            yield "the preparation" if job.name == PREPARE else job.name, name

    def _create(self, study: Path, job: Job, dry_run: bool = False) -> None:
        """Submits a run or the preparation, and keeps its manifest as STUDY/gke/NAME.yaml.

        With `dry_run` only the manifest is made; no cluster is asked. Raises ConfigError where xpk
        fails: for an unknown type of machine before anything is asked of the cluster; and with
        `dry_run` where more than one host would prepare.
        """
        prepares = job.name == PREPARE
        files = shlex.join(map(str, (job.log, job.result)))
        # `exec`, for xpk's own wrapper passes SIGTERM to its shell alone, and looks at the exit
        # code.
        command = f"exec python -m blt_jax.engines.host {files} {job.elsewhere().command}"
        machine = (
            f"--device-type={self.prepare_type}" if prepares else f"--tpu-type={self.tpu_type}"
        )
        with storage.Growing(study / "gke") as growing:
            manifest = growing.here / f"{job.name}.yaml"
            client.call(
                *("xpk", "workload", "create", f"--workload={workload(study, job.name)}"),
                *(machine, f"--command={command}", f"--cluster={self.cluster}"),
                *(f"--project={self.project}", f"--zone={self.zone}"),
                *(f"--namespace={self.namespace}", f"--docker-image={self.image}"),
                f"--num-slices={1 if prepares else self.slices}",
                f"--max-restarts={self.max_restarts}",
                f"--restart-on-exit-codes={LOST_EXIT_CODE}",
                f"--output-manifest-file={manifest}",
                *shlex.split(self.extra),
                *(["--dry-run"] if dry_run else []),
                need=NEED,
                patience=PATIENCE,
            )
            if prepares and dry_run:
                _need_one_host(manifest, self.prepare_type)

    @classmethod
    def queue(cls, study: Path, runs: Sequence[str]) -> list[Queued]:
        """The study's workloads in the cluster, those that have ended included."""
        if not (study / "gke").exists():
            return []
        names = {workload(study, run): ("runs", i) for i, run in enumerate(runs)}
        names[workload(study, PREPARE)] = ("prepare", -1)
        jobsets = json.loads(_kubectl(study, "get", JOBSETS, "--output=json"))["items"]
        ours = [jobset for jobset in jobsets if jobset["metadata"]["name"] in names]
        return [_queued(jobset, *names[jobset["metadata"]["name"]]) for jobset in ours]

    @classmethod
    def cancel(cls, study: Path, runs: Sequence[str]) -> list[Queued]:
        jobs = cls.queue(study, runs)
        if jobs:
            _delete(study, [job.job for job in jobs])
        return [job for job in jobs if not job.ended]


def workload(study: Path, run: str) -> str:
    """Name of a run's workload: valid for Kubernetes, the same from every machine, no other
    study's.
    """
    digest = hashlib.sha256(f"{study.resolve()}/{run}".encode()).hexdigest()[:8]
    plain = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    return f"r-{plain[: NAME - 11].strip('-')}-{digest}"


def _need_one_host(manifest: Path, machine: str) -> None:
    # A parser of YAML for one number is too much.
    counts = re.findall(r"\bparallelism: (\d+)", manifest.read_text())
    hosts = max(map(int, counts), default=1)
    if hosts > 1:
        raise ConfigError(
            f"gke.prepare_type: {machine!r} has {hosts} hosts, and one prepares: v6e-1, "
            "n2-standard-32-1"
        )


def _queued(jobset: dict[str, Any], part: str, index: int) -> Queued:
    """A workload by what the cluster says of its JobSet."""
    name, status = jobset["metadata"]["name"], jobset.get("status", {})
    hold = [
        condition for condition in status.get("conditions", []) if condition["status"] == "True"
    ]
    ends = [condition for condition in hold if condition["type"] in ("Completed", "Failed")]
    slices = sum(jobs.get("replicas", 1) for jobs in jobset["spec"]["replicatedJobs"])
    ready = sum(jobs.get("ready", 0) for jobs in status.get("replicatedJobsStatus", []))
    if ends:
        end = ends[0]
        why = f"{end['type'].lower()}, {end.get('message') or end.get('reason', '')}"
    elif jobset["metadata"].get("deletionTimestamp"):
        why = "being deleted"
    elif jobset["spec"].get("suspend"):
        why = "waits for its slices"
    else:
        why = "" if ready == slices else f"{ready} of {slices} slices are up"
    return Queued(name, part, index, not why, why, ended=bool(ends))


def _delete(study: Path, names: Sequence[str]) -> None:
    """Takes workloads from the cluster; what runs is told to save first."""
    _kubectl(study, "delete", JOBSETS, "--ignore-not-found", "--wait=true", *names)


def _kubectl(study: Path, *argv: str) -> str:
    """What kubectl prints of the cluster that the study was last given to, whichever kubectl is
    set to.
    """
    gke = Gke(**json.loads((study / "gke" / "resources.json").read_text()))
    region = gke.zone.rpartition("-")[0]
    ours = [f"gke_{gke.project}_{place}_{gke.cluster}" for place in (gke.zone, region)]
    need = "it comes with gcloud"
    known = client.call("kubectl", "config", "get-contexts", "--output=name", need=need).split()
    contexts = [context for context in ours if context in known]
    if not contexts:
        raise ConfigError(
            f"kubectl does not know {ours[0]}: once, gcloud container clusters get-credentials "
            f"{gke.cluster} --project={gke.project} --location={gke.zone} (of a regional cluster "
            f"{region})"
        )
    where = (f"--context={contexts[0]}", f"--namespace={gke.namespace}")
    return client.call("kubectl", *where, *argv, need=need)
