"""A lease on a folder: at most one live process writes to a run, or launches a study, at a time.

`lease.json` in the folder says who holds it and is rewritten every few seconds. A lock of the file
system would be simpler, but NFS and object stores have none that can be trusted. A holder on this
machine is judged by its process, so a killed one is replaced at once; a holder elsewhere only by
its heartbeat. No jax: launchers and status tables read leases too.
"""

import dataclasses
import json
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from os import PathLike
from pathlib import Path

from blt_jax import storage
from blt_jax.runs.run_files import LEASE

HEARTBEAT = 5.0  # seconds between rewrites
STALE = 60.0  # seconds without a heartbeat after which a holder on another machine counts as dead
_SETTLE = 0.2  # seconds between taking a stale lease over on a disk and looking who else did


class LeaseHeld(RuntimeError):
    """Another live process holds the folder. The message is one line: who, since when, what to
    do.
    """


@dataclasses.dataclass(frozen=True)
class Holder:
    """The content of `lease.json`; times are seconds since the epoch."""

    host: str
    # tells apart machines, boots and containers that share a host name; "" where unknown
    machine: str
    pid: int
    # start of the process in clock ticks since boot, against reused pids; 0 where unknown
    started: int
    since: float
    heartbeat: float
    command: str
    token: str  # unique per lease

    @property
    def local(self) -> bool:
        """Whether the holder runs where its pid means something to us."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def alive(self) -> bool:
        """Whether the holder still counts."""
        if self.local:
            return _process_lives(self.pid, self.started)
        return time.time() - self.heartbeat < STALE

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since}"


def holder(folder: str | PathLike[str]) -> Holder | None:
    """The live `Holder` of a folder's lease, or None."""
    current = _read(storage.at(folder) / LEASE)
    return current if current is not None and current.alive else None


class Lease:
    """Context manager that holds the lease of `folder` (made if absent) while its body runs.

    `what` is the word for the folder in messages ("study", "run"). Raises `LeaseHeld` on entry when
    a live process, this one included, holds it. `check` raises it later, if the lease was lost (the
    machine slept so long that another took over): call it before anything that others could read.
    """

    def __init__(
        self, folder: str | PathLike[str], what: str = "run", heartbeat: float = HEARTBEAT
    ):
        self.folder = storage.at(folder)
        self.what = what
        self._path = self.folder / LEASE
        self._heartbeat = heartbeat
        self._ended = threading.Event()
        self._usurper: Holder | None = None

    def __enter__(self) -> "Lease":
        storage.make_folder(self.folder)
        now = time.time()
        self._own = Holder(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=_start_ticks(os.getpid()),
            since=now,
            heartbeat=now,
            command=shlex.join(sys.argv),
            token=uuid.uuid4().hex,
        )
        while not storage.create(self._path, self._json()):
            other = _read(self._path)
            if other is None:
                continue  # released between the two calls
            if other.token == self._own.token:
                break  # made by a request that was sent again, as its answer was lost
            if other.alive:
                raise self._held(other)
            if self._take_over(other):
                break
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the folder back, once; for whoever leaves the process without leaving the
        context.
        """
        self._ended.set()
        self._thread.join()
        version = storage.version(self._path)
        current = _read(self._path)
        if current is not None and current.token == self._own.token:
            storage.remove(self._path, version)

    def check(self) -> None:
        """Raises `LeaseHeld` if another process took the lease over; costs nothing."""
        if self._usurper is not None:
            raise self._held(self._usurper)

    def _held(self, other: Holder) -> LeaseHeld:
        mend = f"end it (kill {other.pid})" if other.local else "end it there"
        if not other.local:
            mend += f", or wait {STALE:.0f} s after its death"
        return LeaseHeld(
            f"the {self.what} {self.folder} is in use by {other}: wait for it, or {mend}"
        )

    def _take_over(self, stale: Holder) -> bool:
        """Replaces a dead holder; of several processes that try at once one stays: a disk's last, a
        bucket's first.
        """
        if not stale.local:
            # Clocks of machines may disagree by more than STALE; a living holder shows within two
            # beats.
            time.sleep(2 * self._heartbeat)
        version = storage.version(self._path)
        if _read(self._path) != stale or not self._write(version):
            return False
        if version is None:
            time.sleep(_SETTLE)
        current = _read(self._path)
        return current is not None and current.token == self._own.token

    def _json(self) -> str:
        return json.dumps(dataclasses.asdict(self._own))

    def _write(self, version: str | None) -> bool:
        """False where it is another's by now, as `storage.replace` tells."""
        self._own = dataclasses.replace(self._own, heartbeat=time.time())
        return storage.replace(self._path, self._json(), version)

    def _beat(self) -> None:
        while not self._ended.wait(self._heartbeat):
            try:
                # Before the holder: a beat that stalls here must not win.
                version = storage.version(self._path)
                current = _read(self._path)
                if current is not None and current.token != self._own.token:
                    self._usurper = current
                    return
                self._write(version)
            except Exception:  # whatever a bucket out of reach raises
                pass  # a full disk or a lost mount may come back before the lease is stale


def _read(path: Path) -> Holder | None:
    """The holder that a lease file names; None if there is no file."""
    for attempt in range(5):
        try:
            return Holder(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            time.sleep(0.05 * attempt)  # created, not written yet
    try:
        written = storage.modified(path)
    except FileNotFoundError:
        return None
    # Its writer died in between, or a person edited it: the file's age stands for the heartbeat.
    return Holder("an unknown host", "", 0, 0, written, written, "", f"unreadable-{written}")


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where /proc does not say, -1 if it is
    dead.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()  # the name before ")" may hold spaces
    return -1 if fields[0] in "ZX" else int(fields[19])


def _process_lives(pid: int, started: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, as another user
    ticks = _start_ticks(pid)
    return ticks != -1 and (not ticks or not started or ticks == started)


def _machine() -> str:
    """This boot of this machine and its pid namespace (container), where Linux tells them."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
