"""Engine `slurm`: the jobs of a study as Slurm jobs: prepare, then an array of runs, then the
report.

STUDY/slurm holds what is submitted, to be read, edited and submitted by hand:

    prepare.sh  store, tokenizer, entropy model, plan; then submits the next two
    runs.sh     an array of all runs: array index -> line of runs.tsv (run folder, command), from 0;
                where the cluster takes no array that long, runs-1001.sh is an array of those from
                line 1001, and so on
    report.sh   after the runs, whether they succeeded or not: the report, then evaluations and the
                report with them

Slurm queues, places, requeues. What is done is read from the run folders, what is queued or running
from `squeue` by the jobs' names; nothing else is kept, and `sacct` is not needed. No jax here.
"""

import dataclasses
import hashlib
import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from blt_jax import storage
from blt_jax.config import ConfigError
from blt_jax.engines import Engine, Job, Queued, Work, at_least, client, only_options
from blt_jax.runs import run_files
from blt_jax.runs.preemption import LOST_EXIT_CODE, SAVED_EXIT_CODE

WARNING = 120  # seconds before the time limit at which jobs are told to save
MAX_ARRAY = 1001  # Slurm's own default of MaxArraySize: indices are below it


@dataclasses.dataclass(frozen=True)
class Slurm(Engine):
    """What the jobs ask for. "" and 0: nothing is said, the cluster's default holds."""

    partition: str = ""
    account: str = ""
    # limit of each job, as sbatch takes it ("4:00:00"); runs save before it and are queued again
    time: str = ""
    nodes: int = 1  # of each run
    gpus: int = 0  # per node; one process per GPU
    cpus: int = 0  # per process
    constraint: str = ""
    at_once: int = 0  # runs at a time
    extra: str = ""  # more options of sbatch, as on its command line: "--mem=64G --exclusive"

    goes_on: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least("slurm", self, nodes=1, gpus=0, cpus=0, at_once=0)
        only_options("slurm.extra", shlex.split(self.extra))

    @property
    def options(self) -> list[str]:
        """The sbatch options of every job."""
        named = {"partition": self.partition, "account": self.account, "time": self.time}
        named |= {"constraint": self.constraint, "cpus-per-task": str(self.cpus or "")}
        given = [f"--{name}={value}" for name, value in named.items() if value]
        return given + shlex.split(self.extra)

    def places(self, nodes: int, processes: int) -> list[str]:
        """Nodes, processes and GPUs of a job; every process sees all GPUs of its node and takes
        one.
        """
        gpus = [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        return [f"--nodes={nodes}", f"--ntasks-per-node={processes}", *gpus]

    def check(self, study: Path) -> None:
        if storage.in_bucket(study):
            raise ConfigError(
                f"--engine=slurm: {study} is in a bucket; Slurm's scripts and logs need a folder"
            )

    def write(self, work: Work, dry_run: bool = False) -> str:
        folder = work.folder / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        self._write_fixed(work)
        lines = [f"{job.folder}\t{job.command}\n" for job in work.runs]
        _write(folder / "runs.tsv", "".join(lines))
        limit = f"%{self.at_once}" if self.at_once else ""
        most = max_array()
        for first in range(0, len(work.runs), most):
            last = min(most, len(work.runs) - first) - 1
            options = [*self.options, f"--array=0-{last}{limit}"]
            options += self.places(self.nodes, max(self.gpus, 1))
            line = (
                f'sed -n "$((SLURM_ARRAY_TASK_ID + {first + 1}))p" {_quoted(folder / "runs.tsv")}'
            )
            body = f"IFS=$'\\t' read -r folder command < <({line})\n"
            body += f"log=$folder/{run_files.LOG} result=$folder/{run_files.RESULT}\n"
            body += 'step "$command"\nmark finished'
            text = script(
                work.folder,
                array(first),
                options,
                f"Runs: array index -> line of runs.tsv, from {first}.",
                body,
                job="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}",
            )
            _write(folder / f"{array(first)}.sh", text)
        return f"{folder} holds what would be submitted"

    def _write_fixed(self, work: Work) -> None:
        """The scripts of the preparation and the report, one process each."""
        folder, options = work.folder / "slurm", self.options + self.places(1, 1)
        body = _steps([work.prepare])
        body += "\n# The runs and the report, or what is missing of them:\n"
        body += f'{shlex.join(work.again)} >> "$log" 2>&1 || '
        body += '{ mark failed "the runs were not submitted"; exit 1; }\nmark finished'
        what = "Before the runs: store, tokenizer, entropy model, plan."
        _write(folder / "prepare.sh", script(work.folder, "prepare", options, what, body))
        body = _steps(work.report) + "\nmark finished"
        what = "After the runs: the report."
        _write(folder / "report.sh", script(work.folder, "report", options, what, body))

    def submit(
        self, work: Work, jobs: Sequence[Job], queued: Sequence[Queued]
    ) -> Iterator[tuple[str, str]]:
        """The report is submitted after the runs, unless one waits for all of them already."""
        if work.prepare in jobs:
            yield "the preparation", _sbatch(work.folder, "prepare")
            return
        before = {job.job for job in queued if job.part == "runs"}
        waits = any(job.part == "report" and not job.running for job in queued)
        indices = [i for i, run in enumerate(work.runs) if run in jobs]
        numbers = self._submit_runs(work.folder, indices) if indices else []
        if numbers:
            yield f"runs {spans(indices)}", ", ".join(numbers)
        if numbers or (before and not waits):
            # One report at a time.
            after = f"--dependency=singleton,afterany:{':'.join([*sorted(before), *numbers])}"
            yield "the report", _sbatch(work.folder, "report", after)

    def _submit_runs(self, study: Path, indices: Sequence[int]) -> list[str]:
        """Submits runs, `at_once` at a time, and returns the numbers of the jobs: one for each
        array.
        """
        limit, most = f"%{self.at_once}" if self.at_once else "", max_array()
        numbers: list[str] = []
        for first in range(0, max(indices) + 1, most):
            inside = [i - first for i in indices if first <= i < first + most]
            if inside:
                # The limit is one array's: of several, each waits for the one before.
                after = [f"--dependency=afterany:{numbers[-1]}"] if limit and numbers else []
                chosen = f"--array={spans(inside)}{limit}"
                numbers.append(_sbatch(study, array(first), chosen, *after))
        return numbers

    @classmethod
    def queue(cls, study: Path, runs: Sequence[str] = ()) -> list[Queued]:
        first = {"prepare": 0, "report": 0} | arrays(study)
        names = {job_name(study, part): part for part in first}
        lines = _client(
            *("squeue", "--noheader", "--array", f"--name={','.join(names)}"),
            "--format=%A|%F|%K|%j|%T|%r",
        )
        jobs = []
        for line in lines.splitlines():
            _, number, index, name, state, reason = line.strip().split("|", 5)
            if name not in names:
                continue
            part, job, run = names[name], number, -1
            if index.isdigit():
                job, run = f"{number}_{index}", int(index) + first[part]
            waits = state == "PENDING"
            jobs.append(
                Queued(job, part.partition("-")[0], run, not waits, reason if waits else "")
            )
        return jobs

    @classmethod
    def cancel(cls, study: Path, runs: Sequence[str] = ()) -> list[Queued]:
        jobs = cls.queue(study, runs)
        if jobs:
            _client("scancel", *sorted({job.job for job in jobs}))
        return jobs


# `step` ends the job. A trap, not `trap ''`, so that the shell outlives a signal and srun's
# processes still get it.
_FRAME = """\
#!/bin/bash
{options}
# {what}
set -u
cd {cwd}
job={job}
[ -z "${{SLURM_CPUS_PER_TASK:-}}" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
trap : TERM USR2

mark() {{ printf '==== %(%Y-%m-%d %H:%M:%S)T %s: %s\\n' -1 "$1" "${{2-}}" >> "$log"; }}

step() {{  # runs a command, says in $log how it went, and has it queued again if it saved
  mark started "$1"
  eval "srun --kill-on-bad-exit=0 --open-mode=append --output=$(printf %q "$log") $1"
  local code=$?
  case $code in
    0) [ -e "$result" ] && return
       mark failed "exit code 0, but no ${{result##*/}}"; exit 1 ;;
    {saved})  # it saved, or a process of it was told to stop and the others lost it
       # A cancelled job is COMPLETING here, and would be queued again all the same.
       # So is one that Slurm ends and queues again by itself.
       if scontrol show job "$job" | grep -q JobState=COMPLETING; then
         mark stopped "by Slurm"
       else
         mark saved "to be continued"
         scontrol requeue "$job"
       fi
       exit {exit} ;;
    *) mark failed "exit code $code"; exit "$code" ;;
  esac
}}

{body}
"""
# 128 + SIGTERM, SIGUSR2 of any machine
_SAVED = f"{SAVED_EXIT_CODE} | {LOST_EXIT_CODE} | 138 | 140 | 143"


def script(
    study: Path, part: str, options: list[str], what: str, body: str, job: str = "$SLURM_JOB_ID"
) -> str:
    """The text of STUDY/slurm/PART.sh. Its jobs are told to save WARNING seconds before their time
    is up.
    """
    options = [
        f"--job-name={job_name(study, part)}",
        f"--output={study / 'slurm' / part}-%j.out",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR2@{WARNING}",
        *options,
    ]
    lines = "\n".join(f"#SBATCH {shlex.quote(option)}" for option in options)
    cwd = shlex.quote(os.getcwd())
    return _FRAME.format(
        options=lines, what=what, cwd=cwd, job=job, saved=_SAVED, exit=SAVED_EXIT_CODE, body=body
    )


def _steps(jobs: Sequence[Job]) -> str:
    """Shell commands that run jobs with one log and one result, in turn."""
    # One process with all GPUs of its node; with this variable jax thinks it one of several, each
    # with one.
    clean = ["env", "-u", "SLURM_STEP_NODELIST"]
    steps = [f"step {_quoted(shlex.join([*clean, *job.argv]))}" for job in jobs]
    files = [f"log={_quoted(jobs[0].log)}", f"result={_quoted(jobs[0].result)}"]
    return "\n".join(files + steps)


def array(first: int) -> str:
    """Name of the array whose index 0 is run number `first`."""
    return f"runs-{first}" if first else "runs"


def max_array() -> int:
    """How many jobs an array of this cluster may have, where it says so."""
    try:
        limit = re.search(r"MaxArraySize\s*=\s*(\d+)", _client("scontrol", "show", "config"))
    except ConfigError:  # no cluster here: files for one
        limit = None
    return int(limit[1]) if limit else MAX_ARRAY


def arrays(study: Path) -> dict[str, int]:
    """{name: first run} of the arrays that STUDY/slurm has scripts of."""
    names = sorted(path.stem for path in (study / "slurm").glob("runs*.sh"))
    return {name: int(name.partition("-")[2] or 0) for name in names}


def job_name(study: Path, part: str) -> str:
    """Tells this study's jobs from all others: people may name two studies alike, but not their
    folders.
    """
    digest = hashlib.sha256(str(study.resolve()).encode()).hexdigest()[:10]
    return "-".join((re.sub(r"[^\w.-]", "-", study.name), digest, part))


def spans(numbers: Collection[int]) -> str:
    """[0, 1, 2, 5] as sbatch writes it: '0-2,5'."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def _quoted(text: object) -> str:
    return shlex.quote(str(text))


def _write(path: Path, text: str) -> None:
    with storage.replacing(path) as temporary:
        temporary.write_text(text)


def _sbatch(study: Path, part: str, *options: str) -> str:
    """Submits STUDY/slurm/PART.sh and returns the job's number."""
    path = study / "slurm" / f"{part}.sh"
    return _client("sbatch", "--parsable", *options, str(path)).strip().split(";")[0]


def _client(*argv: str) -> str:
    # Inside a job its own shape must not become that of the jobs it submits.
    environment = {
        k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith("SLURM_")
    }
    return client.call(*argv, need="run --engine=slurm where Slurm is", environment=environment)
