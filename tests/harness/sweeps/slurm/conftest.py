"""A real Slurm of one node, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is put back into the queue waits until its old credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=INFINITE State=UP
"""

LOGS = ("munged.out", "slurmctld.out", "slurmd.out", "slurmd.log")

GPUS = "NodeName={host} Name=gpu File=/dev/zero,/dev/full\n"
"""Two devices that any machine has, in place of GPUs."""


def _missing() -> str | None:
    """Return the reason why no Slurm can be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        packages = "slurmctld, slurmd, munge, slurm-client"
        return f"there is no Slurm (no {absent[0]}; Debian: {packages})"
    return None if os.geteuid() == 0 else "only root can start a Slurm"


def _until(ready: Callable[[], object], seconds: float = 60) -> bool:
    """Wait until something is ready; return whether it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start munge and a Slurm of two processors and two GPUs that are none."""
    if reason := _missing():
        pytest.skip(reason)
    pytest.importorskip("submitit")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o700)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    values = {"host": host, "folder": folder, "ports": _free_ports(2)}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder / "gres.conf").write_text(GPUS.format(**values))
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "munged.pid",
        "log-file": "munged.log",
        "seed-file": "munged.seed",
    }
    munged = ["munged", "--force", *(f"--{key}={folder / name}" for key, name in files.items())]
    processes: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", _path())
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        # Workers see this checkout also where another is installed.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
        try:
            for command in ([*munged, "--foreground"], ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
                with (folder / f"{command[0]}.out").open("wb") as out:
                    processes.append(subprocess.Popen(command, stdout=out, stderr=out))
                _until((folder / "munge.socket").exists)
            if not _until(lambda: "idle" in subprocess.getoutput("sinfo --noheader --format=%T")):
                written = [folder / name for name in LOGS if (folder / name).exists()]
                said = [line for file in written for line in file.read_text().splitlines()]
                pytest.skip(f"Slurm does not start here: {' / '.join(said[-3:])}")
            yield
            subprocess.run(["scancel", "--signal=KILL", "--user=root"], check=False)
        finally:
            for process in reversed(processes):
                _kill_tree(process.pid)
                process.wait()


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cancel what a test left in the queue."""
    yield
    if "slurm" in request.fixturenames and not _missing():
        subprocess.run(["scancel", "--user=root"], check=False)
        left = ["squeue", "--noheader", "--states=pending,running,completing"]
        assert _until(lambda: not subprocess.run(left, capture_output=True, check=True).stdout)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


def _kill_tree(pid: int) -> None:
    process = psutil.Process(pid)
    for member in [*process.children(recursive=True), process]:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
