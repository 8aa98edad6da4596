"""The scripts of a study on a TPU VM, run with a gcloud that runs what it is told on this
machine.
"""

import json
import os
import shlex
import subprocess
import sys

import pytest

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import Job
from blt_jax.engines.tpu_vm import TpuVm
from blt_jax.study import folder as study_folder
from tests.bucket import bucket
from tests.launch.test_slurm import BROKEN, RUN, config  # noqa: F401
from tests.launch.test_sweep import ROOT, finish, sweep

GCLOUD = """#!/bin/bash
printf '%s|' "${@:1:$#-1}" >> "$TOLD"; echo >> "$TOLD"
[[ ${!#} == --command=* ]] && exec bash -c "${!##--command=}"
"""
PYTHON = f"""#!{sys.executable} -IS
import json, os, sys
print(json.dumps([os.getcwd(), *sys.argv[1:]]), file=open(os.environ["TOLD"], "a"))
sys.exit(3 * (os.environ["BREAKS"] in " ".join(sys.argv)))
"""


def test_scripts_of_a_study(config, tmp_path):  # noqa: F811
    study, there = tmp_path / "it's a study", tmp_path / "a home" / "the checkout"
    there.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python 3"
    for path, text in ((tmp_path / "bin" / "gcloud", GCLOUD), (python, PYTHON)):
        path.write_text(text)
        path.chmod(0o755)
    flags = ["--engine=tpu_vm", "--tpu_vm.name=pod", "--tpu_vm.zone=us-east5-a"]
    flags += ["--tpu_vm.checkout=the checkout", f"--tpu_vm.python={python}"]
    code, output = finish(sweep(config, study, *flags))
    assert (
        code == 0
        and f"bash {shlex.quote(f'{study}/tpu_vm/all.sh')} runs the study on pod" in output
    ), output

    def run(script, breaks="nothing"):
        told = tmp_path / "told"
        told.unlink(missing_ok=True)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "TOLD": str(told), "BREAKS": breaks}
        done = subprocess.run(
            ["bash", study / "tpu_vm" / script], env=environment, cwd=tmp_path / "a home"
        )
        lines = told.read_text().splitlines()
        return done.returncode, lines[::2], [json.loads(line) for line in lines[1::2]]

    code, calls, commands = run(f"{RUN}.sh")
    assert code == 0 and calls == ["compute|tpus|tpu-vm|ssh|pod|--zone=us-east5-a|--worker=all|"]
    folder = study / "runs" / RUN
    job = Job(RUN, study_folder.command(study, folder), folder)
    assert commands == [[str(there), *job.elsewhere().argv[1:]]]
    assert str(ROOT) not in str(commands)
    code, calls, commands = run("all.sh")
    assert code == 0 and [call.split("|")[-2] for call in calls] == [
        f"--worker={w}" for w in ("0", "all", "all", "0")
    ]
    words = [study_folder.program(name)[1:] for name in ("sweep", "train", "train", "report")]
    assert [command[1 : 1 + len(words[0])] for command in commands] == words
    assert commands[0][-2:] == [f"--workdir={study}", "--stage=prepare"]
    code, calls, _ = run("all.sh", breaks=f"/{RUN}/")  # what fails ends the row
    assert code == 3 and len(calls) == 2 and BROKEN not in str(calls)


def test_bad_resources(tmp_path):
    with pytest.raises(ConfigError, match=r"needs --tpu_vm.zone=$"):
        TpuVm(name="pod").check(tmp_path)


def test_in_a_bucket(config, tmp_path):  # noqa: F811
    """Scripts there are run from there; Slurm's cannot be."""
    with bucket(tmp_path / "copies") as name:
        study = storage.at(f"{name}/it's a study")
        code, output = finish(
            sweep(config, study, "--engine=tpu_vm", "--tpu_vm.name=pod", "--tpu_vm.zone=z")
        )
        call = f"bash <(gcloud storage cat {shlex.quote(f'{study}/tpu_vm/all.sh')})"
        assert code == 0 and f"{call} runs the study on pod" in output, output
        lines = (study / "tpu_vm" / "all.sh").read_text().splitlines()
        assert lines[1] == call.replace("all.sh", "prepare.sh") + " || exit" and len(lines) == 5
        assert f"--workdir={name}/it" in (study / "tpu_vm" / f"{RUN}.sh").read_text()
        code, output = finish(sweep(config, study, "--engine=slurm"))
        assert code == 2 and "Slurm's scripts and logs need a folder" in output, output
