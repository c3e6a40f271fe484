"""A Slurm of one's own on this machine: its daemons, files and ports in a folder, for as long as a
block lasts."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
_CONFIG = """\
ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that was requeued begins again when its credential has expired: after five seconds instead
# of two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes=localhost MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs of Slurm (Debian: slurm-wlm and munge) that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


def _path() -> str:
    # Debian has the daemons in places outside of a user's PATH.
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@contextmanager
def private_slurm(folder: Path, cpus: int) -> Iterator[None]:
    """Within the block Slurm's commands of this process talk to a cluster of one node with `cpus`
    processors.

    Jobs of its partition `high` preempt those of `low`, which are requeued.

    Raises:
        RuntimeError: it did not start within a minute; the message has the end of its logs.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    config = _CONFIG.format(folder=folder, user=getpass.getuser(), cpus=cpus, ports=_free_ports(2))
    (folder / "slurm.conf").write_text(config)
    before = dict(os.environ)
    os.environ.update(SLURM_CONF=str(folder / "slurm.conf"), PATH=_path())
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [
        _start(
            folder, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge
        )
    ]
    try:
        _wait_for(folder, "munge.socket", (folder / "munge.socket").exists)
        daemons.append(_start(folder, "slurmctld", "-D"))
        daemons.append(_start(folder, "slurmd", "-D", "-N", "localhost"))
        _wait_for(folder, "the node", lambda: "idle" in answer("sinfo", "-h", "-o", "%T"))
        yield
    finally:
        answer("scancel", "--full", "--user", getpass.getuser())
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        os.environ.clear()
        os.environ.update(before)


def answer(*command: str) -> str:
    """What a command of Slurm says; empty where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _start(folder: Path, *command: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{command[0]}.out").open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def _wait_for(folder: Path, what: str, there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        if time.monotonic() > end:
            said = " | ".join(
                line for log in folder.glob("*.out") for line in log.read_text().splitlines()[-3:]
            )
            raise RuntimeError(f"{what} did not come up within a minute: {said}")
        time.sleep(0.2)


def _free_ports(count: int) -> Sequence[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
