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

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.storage import replacing


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where the scripts go, flags `--tpu_vm.NAME`."""

    name: str = ""  # of the TPU VM
    zone: str = ""
    project: str = ""  # "": gcloud's own
    checkout: str = "blt_jax"  # on the hosts, from the home folder
    python: str = "python3"  # that has this package and its extra `tpu`

    def check(self):
        """Raises ConfigError where something is missing that nothing has a default for."""
        missing = [name for name in ("name", "zone") if not getattr(self, name)]
        if missing:
            raise ConfigError(
                f"--engine=tpu_vm needs {' '.join(f'--tpu_vm.{name}=' for name in missing)}"
            )

    def ssh(self, command, worker="all"):
        """argv that runs a shell command on that host (0: the first), or on all of them at once."""
        words = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, f"--zone={self.zone}"]
        words += [f"--project={self.project}"] if self.project else []
        return [*words, f"--worker={worker}", f"--command={command}"]


def write(study, resources, prepare, report, jobs):
    """Writes STUDY/tpu_vm. `prepare`, `report`: argv for one host; `jobs`: `Job`s, each for all
    hosts.
    """
    folder = study / "tpu_vm"
    storage.make_folder(folder)

    def script(name, argv, worker):
        there = f"cd {shlex.quote(resources.checkout)} && exec {shlex.join(argv)}"
        _write(folder / f"{name}.sh", f"exec {shlex.join(resources.ssh(there, worker))}\n")

    script("prepare", prepare, "0")
    script("report", report, "0")
    for job in jobs:
        script(job.name, job.argv, "all")
    names = ["prepare", *(job.name for job in jobs), "report"]
    _write(folder / "all.sh", "".join(f"{call(study, name)} || exit\n" for name in names))


def call(study, name):
    """The shell command that runs a script of the study."""
    path = shlex.quote(str(study / "tpu_vm" / f"{name}.sh"))
    return f"bash <(gcloud storage cat {path})" if storage.in_bucket(study) else f"bash {path}"


def _write(path, text):
    with replacing(path) as temporary:
        temporary.write_text("#!/bin/bash\n" + text)
