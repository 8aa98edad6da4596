"""A real Slurm on this machine: a controller and two nodes, in a folder of their own, for the user
who runs the tests.

Debian's packages are enough, without accounting and cgroups; nothing of the machine's own
configuration is read or changed. The nodes are called by loopback addresses, so that the processes
of a job find each other by these names.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "munge"]
PROGRAMS = ["slurmctld", "slurmd", "squeue", "munged", "mungekey"]
NODES = ["127.0.0.1", "127.0.0.2"]
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=60
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=127.0.0.[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=1 RealMemory=1000
PartitionName=low Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10
"""


def install():
    """Why there is no Slurm here; "" where there is one, if need be installed by apt as root."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if all(map(shutil.which, PROGRAMS)):
        return ""
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        return f"needs Slurm: apt-get install {' '.join(PACKAGES)}, as root"
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run([apt, "-qq", *arguments], capture_output=True, text=True, timeout=300)
    return (
        ""
        if done.returncode == 0
        else f"apt-get could not install Slurm: {done.stderr.strip()[-200:]}"
    )


class Cluster:
    """Context manager; inside it SLURM_CONF names the cluster. Two partitions, `high` preempts
    `low` by requeueing.
    """

    def __init__(self, folder):
        self.folder = folder
        daemons = [*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"]
        self._pid_files = [folder / f"{daemon}.pid" for daemon in daemons]

    def __enter__(self):
        folder = self.folder
        (folder / "state").mkdir(parents=True)
        os.chmod(folder, 0o755)  # munge refuses a socket that others cannot reach
        port = _free_ports(3)
        told = dict(host=socket.gethostname().split(".")[0], user=getpass.getuser(), folder=folder)
        (folder / "slurm.conf").write_text(
            CONFIG.format(port=port, first=port + 1, last=port + 2, **told)
        )
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        _run("mungekey", "-c", "-k", folder / "munge.key")
        munge = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
        }
        munge |= {"seed-file": "munge.seed"}
        _run("munged", "--force", *(f"--{name}={folder / file}" for name, file in munge.items()))
        _run("slurmctld", "-f", folder / "slurm.conf")
        for node in NODES:
            _run("slurmd", "-N", node, "-f", folder / "slurm.conf")
        self.wait(
            lambda: slurm("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D").strip() == "2", 30
        )
        return self

    def __exit__(self, *exception):
        for more in (
            [],
            ["--signal=KILL", "--full"],
        ):  # what a failed test left behind does not get to save
            subprocess.run(
                ["scancel", "--user", getpass.getuser(), *more], capture_output=True, timeout=30
            )
        deadline = time.monotonic() + 20
        while slurm("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for file in self._pid_files:
                with contextlib.suppress(
                    OSError, ValueError
                ):  # a daemon that ends removes its file
                    os.kill(int(file.read_text()), number)
            time.sleep(1)
        del os.environ["SLURM_CONF"]

    def wait(self, condition, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(
                [slurm("squeue", "-a"), (self.folder / "slurmctld.log").read_text()[-3000:]]
            )
            time.sleep(0.2)


def slurm(*command):
    """What a client prints; clients may hang where the controller is gone."""
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout


def _run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def _free_ports(count):
    """The first of `count` neighbouring ports that are free."""
    for first in range(16817 + os.getpid() % 1000 * count, 60_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as one:
                    one.bind(("", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")
