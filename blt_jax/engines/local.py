"""Engine `local`: the jobs of a study as processes of this machine, a few at a time.

A job is a command that a person could paste, and a folder; it is done if and only if the folder
holds `result.json`. The engine keeps no state of its own: killed at any moment and started again,
it runs what is missing. Each job is told apart from the launcher (own session, so that a Ctrl-C
reaches the launcher alone) but dies with it. No jax here.
"""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

from blt_jax import storage, storage_errors
from blt_jax.config import ConfigError
from blt_jax.runs import lease
from blt_jax.runs.preemption import SAVED_EXIT_CODE, StopSignal
from blt_jax.study import status

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
class Job:
    """A command and the folder in which it leaves `result.json` and its lease, and we `log.txt`."""

    name: str
    argv: list[str]
    folder: pathlib.Path

    @property
    def command(self):
        """The line that a person could paste into a shell."""
        return shlex.join(self.argv)

    @property
    def done(self):
        return (self.folder / "result.json").exists()


@dataclasses.dataclass(frozen=True)
class Outcome:
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


def run(jobs, workers, devices=(), watch=None, grace=GRACE):
    """Runs the jobs that are not done, `workers` at a time, in the given order.

    A job that exits with 42 is started again; one that ends otherwise without a result is started
    once more, then given up, and the rest goes on. A job whose run another process holds is left to
    it and looked at again. On SIGTERM, SIGINT or SIGUSR2 every process gets SIGTERM and `grace`
    seconds to save.

    Args:
      jobs: list of `Job`.
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
    running = []
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

    def __init__(self, job):
        self.job = job
        self.started = self.failures = 0
        self.message = ""
        self._look = 0.0
        self._growing = None  # where log.txt is written

    def held(self):
        """Whether another process has the run; looked up once per `HELD`, as the folder may be far
        away.
        """
        if time.monotonic() < self._look:
            return True
        held = lease.holder(self.job.folder) is not None
        self._look = time.monotonic() + HELD if held else 0.0
        return held

    def enqueue(self):
        """An earlier launcher gave this job up; the folder should not say so while it waits for
        us.
        """
        if status.last_words(self.job.folder / "log.txt")[0] == "failed":
            status.append(self.job.folder, "queued", "again")

    def start(self, slot):
        """Starts a process in `slot` (environment, cores); False, with a message, if that cannot
        be.
        """
        self.slot, (environment, cores) = slot, slot
        prelude = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _PRELUDE,
            str(os.getpid()),
            ",".join(map(str, cores)),
        ]
        try:
            storage.make_folder(self.job.folder)
            with open(self._log(), "ab") as log:
                log.write(status.mark("started", self.job.command).encode())
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
                self._growing.flush()  # that it began is known even if we are killed now
        except OSError as error:
            told = storage_errors.of_disk(error) or (error.strerror,)
            self.message = f"cannot start the run in {self.job.folder}: {'; '.join(told)}"
            return False
        self.started += 1
        self.began = time.monotonic()
        return True

    def finish(self):
        """What an ended process means for the job: "done", "failed" or "again"."""
        code = self.process.returncode
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # helpers that it left behind
        if self.job.done:
            self.log("finished", f"after {status.duration(time.monotonic() - self.began)}")
            return "done"
        if code == SAVED_EXIT_CODE:
            self.log("saved", "to be continued")
            return "again"
        if self.held():
            self.log("left", "another process has the run")
            return "again"
        self.failures += 1
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        if code == 0:
            how += ", but no result.json"
        self.log("failed" if self.failures == TRIES else "retry", how)
        self.message = status.last_words(self._log())[1] or how
        return "failed" if self.failures == TRIES else "again"

    def outcome(self, state):
        if self._growing:
            self._growing.close()
        return Outcome(self.job, state, self.started, self.message if state == "failed" else "")

    def log(self, word, detail):
        with contextlib.suppress(
            OSError
        ):  # a full disk has already been reported by the job or by `start`
            with open(self._log(), "a") as log:
                log.write(status.mark(word, detail))

    def _log(self):
        """The path of log.txt on this machine."""
        self._growing = self._growing or storage.Growing(self.job.folder, ["log.txt"])
        return self._growing.here / "log.txt"


def _stop(running, grace):
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


def _environment(slot, workers, devices):
    """(environment, cores) of a worker: its share of the cores, its device."""
    cores = ()
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
