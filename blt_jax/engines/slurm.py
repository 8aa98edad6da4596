"""Engine `slurm`: the jobs of a study as Slurm jobs: prepare, then an array of runs, then the
report.

STUDY/slurm holds what is submitted, to be read, edited and submitted by hand:

    prepare.sh  store, tokenizer, entropy model, plan; then submits the next two
    runs.sh     an array for all runs: array index -> line of runs.tsv (run folder, command), from 0;
                where the cluster takes no array that long, runs-1001.sh is an array of those from line 1001, and so on
    report.sh   after the runs, whether they succeeded or not: the report, then evaluations and the report with them

Slurm queues, places, requeues. What is done is read from the run folders, what is queued or running
from `squeue` by the jobs' names; nothing else is kept, and `sacct` is not needed. No jax here.
"""

import dataclasses
import hashlib
import os
import re
import shlex

from blt_jax.config import ConfigError
from blt_jax.engines import client
from blt_jax.engines.queued import Queued
from blt_jax.runs.preemption import LOST_EXIT_CODE, SAVED_EXIT_CODE
from blt_jax.storage import replacing

WARNING = 120  # seconds before the time limit at which jobs are told to save
MAX_ARRAY = 1001  # Slurm's own default of MaxArraySize: indices are below it


@dataclasses.dataclass(frozen=True)
class Resources:
    """What the jobs ask for, flags `--slurm.NAME`. "" and 0: nothing is said, the cluster's default
    holds.
    """

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

    def __post_init__(self):
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 0), ("at_once", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"slurm.{name} = {getattr(self, name)}: must be at least {least}")
        wrong = [word for word in shlex.split(self.extra) if not word.startswith("-")]
        if wrong:
            raise ConfigError(
                f"slurm.extra: {wrong[0]!r} is no option; options are written --name=value"
            )

    @property
    def options(self):
        """What sbatch is told for every job."""
        named = {"partition": self.partition, "account": self.account, "time": self.time}
        named |= {"constraint": self.constraint, "cpus-per-task": self.cpus}
        return [f"--{name}={value}" for name, value in named.items() if value] + shlex.split(
            self.extra
        )

    def places(self, nodes, processes):
        """Nodes, processes and GPUs of a job; every process sees all GPUs of its node and takes
        one.
        """
        gpus = [f"--gpus-per-node={self.gpus}"] if self.gpus else []
        return [f"--nodes={nodes}", f"--ntasks-per-node={processes}", *gpus]


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


def script(study, part, options, what, body, job="$SLURM_JOB_ID"):
    """The text of STUDY/slurm/PART.sh. Its jobs are told to save WARNING seconds before their time
    is up.
    """
    told = [
        f"--job-name={job_name(study, part)}",
        f"--output={study / 'slurm' / part}-%j.out",
        "--open-mode=append",
        "--requeue",
        f"--signal=USR2@{WARNING}",
        *options,
    ]
    lines = "\n".join(f"#SBATCH {shlex.quote(one)}" for one in told)
    cwd = shlex.quote(os.getcwd())
    return _FRAME.format(
        options=lines, what=what, cwd=cwd, job=job, saved=_SAVED, exit=SAVED_EXIT_CODE, body=body
    )


def write(study, resources, sweep, after, jobs):
    """Writes STUDY/slurm.

    Args:
      study: folder, absolute. resources: `Resources`. sweep: argv that submits the study; the
      preparation is `sweep --stage=prepare`, and ends with `sweep`. after: argvs of what follows
      the runs, each of which draws the report. jobs: `Job`s in the order of the plan; None while
      there is no plan.
    """
    folder = study / "slurm"
    folder.mkdir(parents=True, exist_ok=True)

    def part(name, options, what, body, **how):
        _write(
            folder / f"{name}.sh",
            script(study, name, resources.options + options, what, body, **how),
        )

    def fixed(log, result, *argvs):
        # One process with all GPUs of its node; with this variable jax thinks it one of several,
        # each with one.
        steps = [
            f"step {_quoted(shlex.join(['env', '-u', 'SLURM_STEP_NODELIST', *argv]))}"
            for argv in argvs
        ]
        return "\n".join(
            [f"log={_quoted(folder / log)}", f"result={_quoted(study / result)}", *steps]
        )

    body = fixed("prepare.log", "plan.json", [*sweep, "--stage=prepare"])
    body += "\n# The runs and the report, or what is missing of them:\n"
    body += f'{shlex.join(sweep)} >> "$log" 2>&1 || {{ mark failed "the runs were not submitted"; exit 1; }}\n'
    body += "mark finished"
    part(
        "prepare",
        resources.places(1, 1),
        "Before the runs: store, tokenizer, entropy model, plan.",
        body,
    )
    body = fixed("report.log", "report/index.html", *after) + "\nmark finished"
    part("report", resources.places(1, 1), "After the runs: the report.", body)
    if jobs is None:
        return
    lines = [f"{job.folder}\t{job.command}\n" for job in jobs]
    _write(folder / "runs.tsv", "".join(lines))
    limit = f"%{resources.at_once}" if resources.at_once else ""
    places = resources.places(resources.nodes, max(resources.gpus, 1))
    job, most = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}", max_array()
    for first in range(0, len(jobs), most):
        line = f'sed -n "$((SLURM_ARRAY_TASK_ID + {first + 1}))p" {_quoted(folder / "runs.tsv")}'
        body = f"IFS=$'\\t' read -r folder command < <({line})\n"
        body += 'log=$folder/log.txt result=$folder/result.json\nstep "$command"\nmark finished'
        options = [f"--array=0-{min(most, len(jobs) - first) - 1}{limit}", *places]
        part(
            array(first),
            options,
            f"Runs: array index -> line of runs.tsv, from {first}.",
            body,
            job=job,
        )


def array(first):
    """Name of the array whose index 0 is run number `first`."""
    return f"runs-{first}" if first else "runs"


def max_array():
    """How many jobs an array of this cluster may have, where it says so."""
    try:
        told = re.search(r"MaxArraySize\s*=\s*(\d+)", _client("scontrol", "show", "config"))
    except ConfigError:  # no cluster here: files for one
        told = None
    return int(told[1]) if told else MAX_ARRAY


def arrays(study):
    """{name: first run} of the arrays that STUDY/slurm has scripts of."""
    names = sorted(path.stem for path in (study / "slurm").glob("runs*.sh"))
    return {name: int(name.partition("-")[2] or 0) for name in names}


def _quoted(path):
    return shlex.quote(str(path))


def _write(path, text):
    with replacing(path) as temporary:
        temporary.write_text(text)


def job_name(study, part):
    """Tells this study's jobs from all others: people may name two studies alike, but not their
    folders.
    """
    mark = hashlib.sha256(str(study.resolve()).encode()).hexdigest()[:10]
    return "-".join((re.sub(r"[^\w.-]", "-", study.name), mark, part))


def queue(study):
    """The study's jobs that are queued or running, a list of `Queued`. Raises ConfigError where
    squeue does.
    """
    first = {"prepare": 0, "report": 0} | arrays(study)
    names = {job_name(study, part): part for part in first}
    told = _client(
        "squeue", "--noheader", "--array", f"--name={','.join(names)}", "--format=%A|%F|%K|%j|%T|%r"
    )
    found = []
    for line in told.splitlines():
        _, number, index, name, state, reason = line.strip().split("|", 5)
        if name not in names:
            continue
        part = names[name]
        job, run = (
            (f"{number}_{index}", int(index) + first[part]) if index.isdigit() else (number, -1)
        )
        waits = state == "PENDING"
        found.append(Queued(job, part.partition("-")[0], run, not waits, reason if waits else ""))
    return found


def submit(study, part, *options):
    """Submits STUDY/slurm/PART.sh and returns the job's number."""
    told = _client("sbatch", "--parsable", *options, str(study / "slurm" / f"{part}.sh"))
    return told.strip().split(";")[0]


def submit_runs(study, indices, at_once=0):
    """Submits those runs, `at_once` at a time (0: all), and returns the numbers of the jobs: one
    for each array.
    """
    most, found = max_array(), []
    for first in range(0, max(indices) + 1, most):
        some = [i - first for i in indices if first <= i < first + most]
        if some:
            limit = f"%{at_once}" if at_once else ""
            # The limit is one array's: of several, each waits for the one before.
            after = [f"--dependency=afterany:{found[-1]}"] if at_once and found else []
            found.append(submit(study, array(first), f"--array={spans(some)}{limit}", *after))
    return found


def submit_report(study, after):
    """The report after the jobs `after` have ended; one at a time."""
    return submit(study, "report", f"--dependency=singleton,afterany:{':'.join(after)}")


def cancel(study):
    """Cancels every job of the study; returns those that there were."""
    jobs = queue(study)
    if jobs:
        _client("scancel", *sorted({one.job for one in jobs}))
    return jobs


def spans(numbers):
    """[0, 1, 2, 5] as sbatch writes it: '0-2,5'."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def _client(*argv):
    # Inside a job its own shape must not become that of the jobs it submits.
    environment = {
        k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith("SLURM_")
    }
    return client.call(*argv, need="run --engine=slurm where Slurm is", environment=environment)
