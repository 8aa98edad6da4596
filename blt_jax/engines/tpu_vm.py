"""Engine `tpu_vm`: a study on one TPU VM without any cluster, as scripts of `gcloud compute tpus
tpu-vm ssh`.

    STUDY/tpu_vm/NAME.sh     one run, or `prepare`, or `report`, on the hosts of the TPU VM
    STUDY/tpu_vm/all.sh      all of them in turn; what is done already takes seconds

Nothing is run here: whoever has gcloud and the TPU runs them, from any machine. A script ends with
the exit code of gcloud; run again, after a preemption for one, all.sh goes on where the runs last
saved. The study lies in a bucket, or on storage that every host mounts at the same path (a
Filestore); the checkout at the same path on every host.
"""

import dataclasses
import shlex
from pathlib import Path
from typing import ClassVar

from blt_jax import storage
from blt_jax.engines import Engine, Job, Kind, Work, required


@dataclasses.dataclass(frozen=True)
class TpuVm(Engine):
    """Where the scripts go."""

    name: str = ""  # of the TPU VM
    zone: str = ""
    project: str = ""  # "": gcloud's own
    checkout: str = "blt_jax"  # on the hosts, from the home folder
    python: str = "python3"  # that has this package and its extra `tpu`

    kind: ClassVar[Kind] = "scripts"

    def check(self, study: Path) -> None:
        required("tpu_vm", self, "name", "zone")

    def write(self, work: Work, dry_run: bool = False) -> str:
        folder = work.folder / "tpu_vm"
        storage.make_folder(folder)
        # The preparation and the report on the first host, runs on all of them.
        jobs = [(work.prepare, "0"), *((run, "all") for run in work.runs), (work.report[0], "0")]
        for job, worker in jobs:
            _write(folder / f"{job.name}.sh", f"exec {shlex.join(self.ssh(job, worker))}\n")
        lines = [f"{call(work.folder, job.name)} || exit\n" for job, _ in jobs]
        _write(folder / "all.sh", "".join(lines))
        return (
            f"{call(work.folder, 'all')} runs the study on {self.name}, NAME.sh next to it one run"
        )

    def ssh(self, job: Job, worker: str) -> list[str]:
        """argv that runs a job on a host, by its number from "0", or on "all" of them at once."""
        there = job.elsewhere(self.python).command
        command = f"cd {shlex.quote(self.checkout)} && exec {there}"
        words = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, f"--zone={self.zone}"]
        words += [f"--project={self.project}"] if self.project else []
        return [*words, f"--worker={worker}", f"--command={command}"]


def call(study: Path, name: str) -> str:
    """The shell command that runs a script of the study."""
    path = shlex.quote(str(study / "tpu_vm" / f"{name}.sh"))
    return f"bash <(gcloud storage cat {path})" if storage.in_bucket(study) else f"bash {path}"


def _write(path: Path, text: str) -> None:
    with storage.replacing(path) as temporary:
        temporary.write_text("#!/bin/bash\n" + text)
