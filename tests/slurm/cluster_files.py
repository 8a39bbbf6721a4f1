"""The configuration files of a Slurm whose two nodes, controller and database share one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NODES = ("n1", "n2")
CPUS_PER_NODE = 4
MEMORY_PER_NODE_MB = 16_000
# Seconds between the SIGTERM that ends a job and the SIGKILL.
KILL_WAIT_SECONDS = 15
# Debian's MariaDB ships its system tables here; see `stored_procedure_table`.
SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")


@dataclass(frozen=True)
class Place:
    """Where one cluster lives: its folder, its name, its ports, this host and who runs it."""

    folder: Path
    name: str
    host: str
    user: str
    controller_port: int
    database_port: int
    node_ports: Sequence[int]

    @property
    def munge_socket(self) -> Path:
        return self.folder / "munge" / "socket"

    @property
    def database_socket(self) -> Path:
        return self.folder / "database" / "socket"

    @property
    def slurm_conf(self) -> Path:
        return self.folder / "etc" / "slurm.conf"


def slurm_conf(place: Place) -> str:
    """Text of slurm.conf: jobs start at once, a dead node is noticed in some 20 seconds."""
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={place.host} NodeAddr=127.0.0.1 Port={port}"
        f" CPUs={CPUS_PER_NODE} RealMemory={MEMORY_PER_NODE_MB} State=UNKNOWN"
        for node, port in zip(NODES, place.node_ports, strict=True)
    )
    return f"""\
ClusterName={place.name}
SlurmctldHost={place.host}(127.0.0.1)
SlurmctldPort={place.controller_port}
SlurmUser={place.user}
SlurmdUser={place.user}
AuthType=auth/munge
AuthInfo=socket={place.munge_socket}
StateSaveLocation={place.folder}/state
SlurmdSpoolDir={place.folder}/spool-%n
SlurmctldPidFile={place.folder}/slurmctld.pid
SlurmdPidFile={place.folder}/slurmd-%n.pid
# No systemd, no cgroups of our own, and a host with fewer CPUs than its nodes claim.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={KILL_WAIT_SECONDS}
SlurmdTimeout=10
InactiveLimit=0
ReturnToService=2
MinJobAge=900
CompleteWait=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={place.database_port}
# The name notwithstanding: where munge listens.
AccountingStoragePass={place.munge_socket}
{nodes}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
# Its jobs preempt those of `test`, which are requeued after the grace time.
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10
"""


def slurmdbd_conf(place: Place) -> str:
    """Text of slurmdbd.conf; the path of the database's socket is told by MYSQL_UNIX_PORT."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={place.munge_socket}
DbdHost={place.host}
DbdAddr=127.0.0.1
DbdPort={place.database_port}
SlurmUser={place.user}
PidFile={place.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={place.user}
StorageLoc=slurm_accounting
"""


def stored_procedure_table() -> str:
    """SQL that makes the one system table slurmdbd needs: it keeps a procedure in the database."""
    lines = SYSTEM_TABLES.read_text().splitlines()
    table = next(line for line in lines if line.startswith("CREATE TABLE IF NOT EXISTS proc "))
    return f"CREATE DATABASE mysql; USE mysql; {table}"
