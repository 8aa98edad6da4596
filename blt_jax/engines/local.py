"""Engine `local`: the jobs of a study as processes of this machine, a few at a time.

A job is done if and only if its folder holds its result. The engine keeps no state of its own:
killed at any moment and started again, it runs what is missing. Each job has a session of its own,
so that a Ctrl-C reaches the launcher alone, but dies with the launcher. No jax here.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from blt_jax import storage, storage_errors
from blt_jax.config import ConfigError
from blt_jax.engines import Engine, Job, Kind, Outcome, Result
from blt_jax.runs import lease, log_marks
from blt_jax.runs.preemption import SAVED_EXIT_CODE, StopSignal
from blt_jax.runs.run_state import duration

GRACE = 60.0  # seconds that jobs get to save after SIGTERM
POLL = 0.1  # seconds between looks at the processes
HELD = 1.0  # seconds between looks at a run that another process holds
TRIES = 2  # attempts per job that may fail

# Runs in the child before the job's own program: what it sets (the death of the launcher kills the
# job, the job's cores) survives exec. In a program of its own because code between fork and exec is
# not safe in a process with threads.
_PRELUDE = """
import os, sys
launcher, cores, argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        sys.exit("the launcher died")
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
try:
    os.execvp(argv[0], argv)
except OSError as error:
    sys.exit(f"cannot run {argv[0]}: {error.strerror}")
"""


@dataclasses.dataclass(frozen=True)
class Local(Engine):
    """This machine; it has no settings beside the number of workers."""

    kind: ClassVar[Kind] = "here"

    def run(
        self,
        jobs: Sequence[Job],
        workers: int,
        watch: Callable[[list[Path]], None] | None = None,
    ) -> Result:
        """`run`, below."""
        return run(jobs, workers, watch=watch)


def run(
    jobs: Sequence[Job],
    workers: int,
    devices: Sequence[str] = (),
    watch: Callable[[list[Path]], None] | None = None,
    grace: float = GRACE,
) -> Result:
    """Runs the jobs that are not done, `workers` at a time, in the given order.

    A job that exits with 42 is started again; one that ends otherwise without a result is started
    once more, then given up, and the rest goes on. A job whose run another process holds is left to
    it and looked at again. On SIGTERM, SIGINT or SIGUSR2 every process gets SIGTERM and `grace`
    seconds to save.

    Args:
      jobs: what to run.
      workers: processes at a time. The cores that this process may use are divided among them.
      devices: values of CUDA_VISIBLE_DEVICES, one per worker; empty: the variable is left alone.
      watch: called a few times per second with the folders of the running jobs.
      grace: seconds between SIGTERM and SIGKILL.

    Returns:
      `Result`. Raises `ConfigError` for fewer than one worker or fewer devices than workers.
    """
    if workers < 1:
        raise ConfigError(f"workers = {workers}: must be at least 1")
    if devices and len(devices) < workers:
        raise ConfigError(
            f"workers = {workers}: there are only {len(devices)} devices ({', '.join(devices)})"
        )
    free = [_environment(slot, workers, devices) for slot in range(workers)]
    outcomes = {job.name: Outcome(job, "done", 0) for job in jobs if job.done}
    queue = [_Attempts(job) for job in jobs if not job.done]
    for waiting in queue:
        waiting.enqueue()
    running: list[_Attempts] = []
    with StopSignal() as stop:
        try:
            while (queue or running) and not stop.requested:
                for attempts in list(queue):
                    if not free:
                        break
                    if attempts.held():
                        continue
                    queue.remove(attempts)
                    if attempts.job.done:  # by the process that held it until now
                        outcomes[attempts.job.name] = attempts.outcome("done")
                    elif attempts.start(free[0]):
                        free.pop(0)
                        running.append(attempts)
                    else:
                        outcomes[attempts.job.name] = attempts.outcome("failed")
                if watch:
                    watch([attempts.job.folder for attempts in running])
                time.sleep(POLL)
                for attempts in [a for a in running if a.process.poll() is not None]:
                    running.remove(attempts)
                    free.append(attempts.slot)
                    state = attempts.finish()
                    if state == "again":
                        queue.insert(0, attempts)
                    else:
                        outcomes[attempts.job.name] = attempts.outcome(state)
        finally:
            _stop(running, grace)
    for attempts in queue + running:
        outcomes[attempts.job.name] = attempts.outcome("done" if attempts.job.done else "stopped")
    return Result(
        [outcomes[job.name] for job in jobs], any(o.state == "stopped" for o in outcomes.values())
    )


class _Attempts:
    """One job and the processes that were started for it."""

    def __init__(self, job: Job):
        self.job = job
        self.started = self.failures = 0
        self.message = ""
        self._next_look = 0.0  # at the lease
        self._growing: storage.Growing | None = None  # where the log is written

    def held(self) -> bool:
        """Whether another process has the run; looked up once per `HELD`, as the folder may be far
        away.
        """
        if time.monotonic() < self._next_look:
            return True
        held = lease.holder(self.job.folder) is not None
        self._next_look = time.monotonic() + HELD if held else 0.0
        return held

    def enqueue(self) -> None:
        """An earlier launcher gave this job up; the folder should not say so while it waits for
        us.
        """
        if log_marks.last(self.job.log)[0] == "failed":
            log_marks.append(self.job.folder, "queued", "again")

    def start(self, slot: tuple[dict[str, str], tuple[int, ...]]) -> bool:
        """Starts a process in `slot` (environment, cores); False, with a message, if that cannot
        be.
        """
        self.slot, (environment, cores) = slot, slot
        prelude = [sys.executable, "-I", "-S", "-c", _PRELUDE]
        prelude += [str(os.getpid()), ",".join(map(str, cores))]
        try:
            storage.make_folder(self.job.folder)
            growing = self._grow()
            with open(self._log(), "ab") as log:
                log.write(log_marks.line("started", self.job.command).encode())
                log.flush()
                self.process = subprocess.Popen(
                    prelude + self.job.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            with contextlib.suppress(Exception):  # what follows the log will try again
                growing.flush()  # that it began is known even if we are killed now
        except OSError as error:
            why = storage_errors.of_disk(error) or (str(error.strerror),)
            self.message = f"cannot start the run in {self.job.folder}: {'; '.join(why)}"
            return False
        self.started += 1
        self.began = time.monotonic()
        return True

    def finish(self) -> str:
        """What an ended process means for the job: "done", "failed" or "again"."""
        code = self.process.returncode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # helpers that it left behind
        if self.job.done:
            self.log("finished", f"after {duration(time.monotonic() - self.began)}")
            return "done"
        if code == SAVED_EXIT_CODE:
            self.log("saved", "to be continued")
            return "again"
        if self.held():
            self.log("left", "another process has the run")
            return "again"
        self.failures += 1
        why = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        if code == 0:
            why += f", but no {self.job.result_file}"
        self.log("failed" if self.failures == TRIES else "retry", why)
        self.message = log_marks.last(self._log())[1] or why
        return "failed" if self.failures == TRIES else "again"

    def outcome(self, state: str) -> Outcome:
        if self._growing:
            self._growing.close()
        return Outcome(self.job, state, self.started, self.message if state == "failed" else "")

    def log(self, event: str, detail: str) -> None:
        # A full disk has already been reported by the job or by `start`.
        with contextlib.suppress(OSError), open(self._log(), "a") as log:
            log.write(log_marks.line(event, detail))

    def _grow(self) -> storage.Growing:
        self._growing = self._growing or storage.Growing(self.job.folder, [self.job.log_file])
        return self._growing

    def _log(self) -> Path:
        """The path of the log on this machine."""
        return self._grow().here / self.job.log_file


def _stop(running: list[_Attempts], grace: float) -> None:
    """Lets the processes save and ends them; a KeyboardInterrupt (second Ctrl-C) ends the
    waiting.
    """
    for attempts in running:
        attempts.process.terminate()  # the process alone: its helpers serve it until it has saved
    deadline = time.monotonic() + grace
    with contextlib.suppress(KeyboardInterrupt):
        while (
            any(attempts.process.poll() is None for attempts in running)
            and time.monotonic() < deadline
        ):
            time.sleep(POLL)
    for attempts in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(attempts.process.pid, signal.SIGKILL)
        attempts.process.wait()
        attempts.log("finished" if attempts.job.done else "stopped", "with the launcher")


def _environment(
    slot: int, workers: int, devices: Sequence[str]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """(environment, cores) of a worker: its share of the cores, its device."""
    cores: tuple[int, ...] = ()
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        count = len(usable)
        # Neighbouring cores share caches. With more workers than cores, several share one.
        first, last = slot * count // workers, (slot + 1) * count // workers
        cores = tuple(usable[first : max(last, first + 1)])
    threads = str(len(cores) or max(count // workers, 1))
    environment = os.environ | {"NPROC": threads, "OMP_NUM_THREADS": threads}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot]
    return environment, cores
