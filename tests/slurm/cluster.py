"""A real Slurm on one machine: munge, MariaDB, slurmdbd, slurmctld and the nodes n1 and n2.

What made Debian 12's Slurm (22.05) work in a container without systemd, and quickly (3 to 5 s):

- Everything lives in one folder and on free ports; SLURM_CONF alone decides which Slurm a program
  talks to, and slurmdbd.conf and cgroup.conf are looked for beside it.
- MariaDB needs no `mariadb-install-db` (4 s): it starts on an empty folder without grant tables,
  listens on a socket in a private folder only, and slurmdbd needs no more than the system table of
  stored procedures. slurmdbd finds the socket by MYSQL_UNIX_PORT.
- Programs that talk to slurmdbd read munge's socket from AccountingStoragePass, not from AuthInfo.
- The cluster is registered at slurmdbd before slurmctld starts.
- Several slurmd's on one host: `slurmd -N <node>`, a port and a spool folder each.
- A requeued job waits for AuthInfo's cred_expire (120 s) before it starts again. StartTime=now
  shortens that, but a job that starts in the second in which its last run was ended is refused by
  its node ("Job credential revoked") and fails: `start_now` leaves two seconds.
- Time limits and `--signal` are looked at every 30 s, and no option changes that.
- slurmstepd's belong to init, and wipe their environment before they end: they are told by the
  folder they run in, their tasks by SLURMD_NODENAME.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

import psutil

from tests.slurm import daemons
from tests.slurm.cluster_files import (
    NODES,
    SYSTEM_TABLES,
    Place,
    slurm_conf,
    slurmdbd_conf,
    stored_procedure_table,
)
from tests.slurm.daemons import Daemon, descendants, kill_all, program, wait_until

PROGRAMS = (
    *("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd", "setpriv"),
    *("sbatch", "srun", "scancel", "scontrol", "squeue", "sinfo", "sacct", "sacctmgr"),
)


def missing_programs() -> list[str]:
    """The programs a cluster needs and this machine lacks."""
    missing = [name for name in PROGRAMS if program(name) is None]
    return missing if SYSTEM_TABLES.exists() else [*missing, str(SYSTEM_TABLES)]


class SlurmCluster:
    """Two nodes, the partitions `test` (default) and `urgent` (preempts `test`), and accounting.

    Jobs of any user run, with or without an account; `root` and `nobody` have the account `tests`.
    """

    def __init__(self) -> None:
        self._daemons: dict[str, Daemon] = {}
        self._place: Place | None = None

    @property
    def place(self) -> Place:
        assert self._place is not None, "the cluster was not started"
        return self._place

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Slurm's programs talk to this cluster and to no other."""
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        return kept | {
            "SLURM_CONF": str(self.place.slurm_conf),
            "PATH": f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin",
        }

    @property
    def log_folder(self) -> Path:
        """Where each daemon's log is, as `<daemon>.log`."""
        return self.place.folder / "log"

    def start(self) -> None:
        """Start all, and return when both nodes take jobs; nothing is left if a step fails."""
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        ports = daemons.free_ports(2 + len(NODES))
        self._place = Place(
            folder=folder,
            name=f"test{os.getpid()}",
            host=socket.gethostname().split(".")[0],
            user=pwd.getpwuid(os.getuid()).pw_name,
            controller_port=ports[0],
            database_port=ports[1],
            node_ports=ports[2:],
        )
        try:
            self._write_files()
            self._start_munge_and_database()
            self._start_accounting()
            self._start_controller_and_nodes()
        except BaseException:
            self.stop()
            raise

    def _write_files(self) -> None:
        place = self.place
        # Other users' jobs read slurm.conf and reach munge's socket.
        place.folder.chmod(0o755)
        for name in ("etc", "munge", "state", "log", *(f"spool-{node}" for node in NODES)):
            (place.folder / name).mkdir(mode=0o755)
        (place.folder / "database").mkdir(mode=0o700)
        key = place.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        place.slurm_conf.write_text(slurm_conf(place))
        (place.folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        accounting = place.folder / "etc" / "slurmdbd.conf"
        accounting.touch(mode=0o600)
        accounting.write_text(slurmdbd_conf(place))

    def _start_munge_and_database(self) -> None:
        folder = self.place.folder
        munge = self._start(
            "munged",
            "--foreground",
            "--force",
            "--num-threads=2",
            f"--key-file={folder}/munge/key",
            f"--socket={self.place.munge_socket}",
            f"--pid-file={folder}/munge/pid",
            f"--log-file={folder}/log/munge.log",
            f"--seed-file={folder}/munge/seed",
        )
        data = folder / "database" / "data"
        data.mkdir()
        tables = folder / "database" / "tables.sql"
        tables.write_text(stored_procedure_table())
        database = self._start(
            "mariadbd",
            "--no-defaults",
            f"--user={self.place.user}",
            f"--datadir={data}",
            f"--socket={self.place.database_socket}",
            f"--pid-file={folder}/database/pid",
            f"--init-file={tables}",
            "--skip-networking",
            "--skip-grant-tables",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--innodb-log-file-size=16M",
            "--innodb-buffer-pool-size=64M",
            "--innodb-lock-wait-timeout=900",
            "--aria-log-file-size=8M",
        )
        munge.wait_until_ready(self.place.munge_socket.exists)
        database.wait_until_ready(self.place.database_socket.exists)

    def _start_accounting(self) -> None:
        accounting = self._start("slurmdbd", "-D", "-v")
        accounting.wait_until_ready(lambda: daemons.listens(self.place.database_port))
        name = self.place.name
        self.run("sacctmgr", "-i", "add", "cluster", name)
        self.run("sacctmgr", "-i", "add", "account", "tests", f"cluster={name}")
        self.run("sacctmgr", "-i", "add", "user", "root,nobody", "account=tests", f"cluster={name}")

    def _start_controller_and_nodes(self) -> None:
        controller = self._start("slurmctld", "-D", "-v")
        for node in NODES:
            self._start_node(node)
        controller.wait_until_ready(lambda: all(self.node_state(n) == "idle" for n in NODES))

    def _start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-v", "-N", node, name=f"slurmd-{node}")

    def _start(self, *command: str, name: str | None = None) -> Daemon:
        name = name or command[0]
        environment = self.environment | {
            "MYSQL_UNIX_PORT": str(self.place.database_socket),
        }
        log = self.log_folder / f"{name}.log"
        self._daemons[name] = Daemon(name, command, log, environment)
        return self._daemons[name]

    def stop(self) -> None:
        """End every daemon, slurmstepd and task of this cluster, and remove its folder."""
        # Nodes first, so that no task is started any more.
        for node in NODES:
            if f"slurmd-{node}" in self._daemons:
                self.kill_node(node)
        for name in reversed(list(self._daemons)):
            self._daemons.pop(name).stop()
        of_cluster = ("SLURM_CONF", str(self.place.slurm_conf))
        kill_all(
            lambda: daemons.living_processes(lambda each: of_cluster in each.environ().items())
        )
        shutil.rmtree(self.place.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command on this cluster printed; AssertionError with its words if it failed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def kill_node(self, node: str) -> None:
        """SIGKILL a node's slurmd, its slurmstepd's and all their tasks, as if the power failed."""
        self._daemons.pop(f"slurmd-{node}").kill()
        kill_all(lambda: self._processes_on(node))

    def revive_node(self, node: str, timeout_seconds: float = 60) -> None:
        """Start a killed node's slurmd, and wait until the node takes jobs."""
        self._start_node(node)
        self._daemons[f"slurmd-{node}"].wait_until_ready(
            lambda: self.node_state(node) in {"idle", "mixed", "allocated"}, timeout_seconds
        )

    def _processes_on(self, node: str) -> list[psutil.Process]:
        """A slurmstepd stays in its slurmd's folder; it wipes its environment before it ends."""
        folder = str(self.log_folder / f"slurmd-{node}")
        of_slurmd = daemons.living_processes(
            lambda process: process.name() in {"slurmd", "slurmstepd"} and process.cwd() == folder
        )
        tasks = {"SLURM_CONF": str(self.place.slurm_conf), "SLURMD_NODENAME": node}
        return [
            *of_slurmd,
            *(child for process in of_slurmd for child in descendants(process)),
            # Their parent may be gone.
            *daemons.living_processes(lambda process: tasks.items() <= process.environ().items()),
        ]

    def submit(self, *arguments: str) -> int:
        """The id of a job that `sbatch` with these arguments queued."""
        return int(self.run("sbatch", "--parsable", *arguments).split(";")[0])

    def job(self, job_id: int) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.run("scontrol", "-o", "show", "job", str(job_id)).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_now(self, job_id: int) -> None:
        """Wait until a requeued job is pending, and spare it the delay of two minutes."""
        self.wait_for(job_id, {"PENDING"})
        # Not `now`: a start within the second of the last run's end is refused by the node.
        self.run("scontrol", "update", f"JobId={job_id}", "StartTime=now+2")

    def wait_for(self, job_id: int, states: Collection[str], timeout_seconds: float = 60) -> str:
        """The state of a job once it is one of `states`."""

        def reached() -> bool:
            return self.job(job_id)["JobState"] in states

        try:
            wait_until(reached, f"job {job_id} is {' or '.join(sorted(states))}", timeout_seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {self.job(job_id)}") from None
        return self.job(job_id)["JobState"]

    def wait_for_text(self, file: Path, *texts: str, timeout_seconds: float = 60) -> str:
        """The text of a job's file once it holds all of `texts`."""

        def read() -> str:
            return file.read_text() if file.exists() else ""

        try:
            wait_until(
                lambda: all(text in read() for text in texts),
                f"{file.name} holds {' and '.join(texts)}",
                timeout_seconds,
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it holds:\n{read()}") from None
        return read()

    def wait_for_accounting(
        self, job_id: int, states: Collection[str], timeout_seconds: float = 30
    ) -> str:
        """What `sacct` tells of a job once it is one of `states`; it lags behind `scontrol`."""
        wait_until(
            lambda: self.accounted_state(job_id) in states,
            f"sacct tells {' or '.join(sorted(states))} of job {job_id}",
            timeout_seconds,
        )
        return self.accounted_state(job_id)

    def accounted_state(self, job_id: int) -> str:
        """The state `sacct` tells of a job's latest run, without "by <uid>"; empty if none."""
        words = self.run("sacct", "-nXP", "-j", str(job_id), "-o", "State").split()
        return words[0] if words else ""

    def node_state(self, node: str) -> str:
        """`sinfo`'s word for a node: idle, mixed, allocated, completing, down, down* ..."""
        return self.run("sinfo", "-h", "-N", "-p", "test", "-n", node, "-o", "%T", check=False)
