"""The port of an engine, and the register of engines.

An engine is where the runs of a study go: this machine, or a cluster. It is a frozen dataclass that
inherits `Engine`; its fields are the flags `--NAME.FIELD`, and what it writes into a study lies in
STUDY/NAME, NAME as in the register. `study/launching.py` decides what is to be run, and when; an
engine only runs it, or gives it to a cluster, and says what the cluster has. No jax here.

To add an engine: one file with the class, and its line in `ENGINES`.
"""

import dataclasses
import importlib
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from blt_jax.config import ConfigError, choice
from blt_jax.runs import run_files

# name of an engine: where its class is
ENGINES = {
    "local": "blt_jax.engines.local:Local",
    "slurm": "blt_jax.engines.slurm:Slurm",
    "gke": "blt_jax.engines.gke:Gke",
    "tpu_vm": "blt_jax.engines.tpu_vm:TpuVm",
}
DEFAULT = "local"

ROOT = Path(__file__).parents[2]  # the checkout

Kind = Literal["here", "cluster", "scripts"]  # see `Engine`


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, and the folder that it leaves its result in and keeps its lease and log in."""

    name: str
    argv: list[str]
    folder: Path
    result_file: str = run_files.RESULT  # in the folder; the job is done once it is there
    log_file: str = run_files.LOG  # in the folder; kept by the engine

    @property
    def command(self) -> str:
        """The line that a person could paste into a shell."""
        return shlex.join(self.argv)

    @property
    def result(self) -> Path:
        """The file that is there once the job is done."""
        return self.folder / self.result_file

    @property
    def log(self) -> Path:
        """The file with what the job prints, and marks of its attempts."""
        return self.folder / self.log_file

    @property
    def done(self) -> bool:
        """Whether it has left its result."""
        return self.result.exists()

    def elsewhere(self, python: str = "python") -> "Job":
        """This job as another machine runs it, with its own `python` in a checkout of its own."""
        ours = f"--config={ROOT}/"
        argv = [
            word.replace(f"{ROOT}/", "", 1) if word.startswith(ours) else word
            for word in self.argv[1:]
        ]
        return dataclasses.replace(self, argv=[python, *argv])


@dataclasses.dataclass(frozen=True)
class Work:
    """A study as an engine gets it."""

    folder: Path  # of the study
    prepare: Job  # all that comes before the runs
    runs: list[Job]  # in the order of the plan
    report: list[Job]  # after the runs; the first draws the report, each later one adds to it
    again: list[str]  # argv that gives the study to the same engine once more
    planned: bool  # False: there is no plan yet; of `runs` the names and folders hold already


@dataclasses.dataclass(frozen=True)
class Queued:
    """A job of a study that a cluster knows. `index`: of a run in the plan; -1 otherwise."""

    job: str  # as the cluster calls it
    part: str  # "prepare" | "runs" | "report"
    index: int
    running: bool
    reason: str  # why it waits, or how it ended
    ended: bool = False  # it is over, and still keeps its name


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended that was run here."""

    job: Job
    state: str  # "done" | "failed" | "stopped": told to stop before it was done
    attempts: int  # processes started by this call; 0: nothing was to do, or not begun
    message: str = ""  # why it failed: one line


@dataclasses.dataclass(frozen=True)
class Result:
    """`outcomes` in the order of the jobs. `interrupted`: we were told to stop; the caller exits
    with 130.
    """

    outcomes: list[Outcome]
    interrupted: bool


class Engine:
    """An engine with its settings. A subclass is a frozen dataclass whose fields are strings and
    integers with defaults.

    kind  "here": `run` runs jobs on this machine and returns when they have ended.
          "cluster": `submit` gives jobs to a queue and returns; `queue` and `cancel` see to them.
          "scripts": nothing is run; `write` leaves files for somebody who runs them.
    """

    kind: ClassVar[Kind] = "cluster"
    # The cluster goes on by itself: from the preparation to the runs, from the runs to the report.
    # Otherwise the same command is given again.
    goes_on: ClassVar[bool] = False

    @classmethod
    def settings(cls) -> dict[str, str | int]:
        """The fields and their defaults."""
        assert dataclasses.is_dataclass(cls)
        return {field.name: field.default for field in dataclasses.fields(cls)}

    @property
    def prepares(self) -> bool:
        """Whether the cluster prepares the study; otherwise this machine does, before the runs."""
        return True

    def check(self, study: Path) -> None:
        """Raises ConfigError where a setting is missing, or the study cannot lie in that folder."""

    # ------------------------------------------------------------ kind "here"

    def run(
        self,
        jobs: Sequence[Job],
        workers: int,
        watch: Callable[[list[Path]], None] | None = None,
    ) -> Result:
        """Runs the jobs that are not done, `workers` at a time; calls `watch` a few times per
        second with the folders of those that run. Jobs save on SIGTERM, SIGINT and SIGUSR2.
        """
        raise NotImplementedError

    # ------------------------------------------------------------ kinds "cluster" and "scripts"

    def write(self, work: Work, dry_run: bool = False) -> str:
        """Writes STUDY/NAME: what would be submitted, to be read and edited. Returns the line that
        says what there is now. Raises ConfigError where the cluster would refuse it, as far as that
        can be known.
        """
        raise NotImplementedError

    def submit(
        self, work: Work, jobs: Sequence[Job], queued: Sequence[Queued]
    ) -> Iterator[tuple[str, str]]:
        """Submits `jobs`: the preparation alone, or runs in the order of the plan, perhaps none
        while others are queued. Yields (what, the cluster's name of it) after each submission.

        `queued`: what `queue` said before.
        """
        raise NotImplementedError

    @classmethod
    def queue(cls, study: Path, runs: Sequence[str]) -> list[Queued]:
        """What the cluster knows of a study's jobs. `runs`: names of its runs, in the plan's order.

        Raises ConfigError where the cluster does not answer.
        """
        return []

    @classmethod
    def cancel(cls, study: Path, runs: Sequence[str]) -> list[Queued]:
        """Takes all of the study's jobs from the cluster; those that run save first. Returns those
        that had not ended. Raises ConfigError likewise.
        """
        return []


def named(name: str) -> type[Engine]:
    """The class of an engine. Raises ConfigError for an unknown one."""
    choice("engine", name, tuple(ENGINES))
    module, _, of = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), of)


def at_least(name: str, settings: object, **least: int) -> None:
    """Raises ConfigError where a setting of engine `name` is smaller than that."""
    for field, bound in least.items():
        if getattr(settings, field) < bound:
            raise ConfigError(
                f"{name}.{field} = {getattr(settings, field)}: must be at least {bound}"
            )


def only_options(name: str, words: Collection[str]) -> None:
    """Raises ConfigError where a word of setting `name` is no option of a command line."""
    wrong = [word for word in words if not word.startswith("-")]
    if wrong:
        raise ConfigError(f"{name}: {wrong[0]!r} is no option; options are written --name=value")


def required(name: str, settings: object, *fields: str) -> None:
    """Raises ConfigError where one of these settings of engine `name` is empty."""
    missing = [field for field in fields if not getattr(settings, field)]
    if missing:
        raise ConfigError(
            f"--engine={name} needs {' '.join(f'--{name}.{field}=' for field in missing)}"
        )
