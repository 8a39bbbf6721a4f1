"""A real Slurm on one machine."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from tests.slurm.cluster_files import (
    NODES,
    Place,
    slurm_conf,
    slurmdbd_conf,
    stored_procedure_table,
)
from tests.slurm.daemons import Daemon, kill_marked, wait_until


class SlurmCluster:
    def __init__(self) -> None:
        self._daemons: dict[str, Daemon] = {}
        self._place: Place | None = None

    @property
    def place(self) -> Place:
        assert self._place is not None, "the cluster was not started"
        return self._place

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to this cluster and not to another one."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        return kept | {
            "SLURM_CONF": str(self.place.slurm_conf),
            "PATH": f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin",
        }

    def start(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        ports = _free_ports(2 + len(NODES))
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
            T = time.time()
            def lap(x):
                print(f"{time.time()-T:.2f} {x}", flush=True)
            self._start_munge_and_database()
            lap("munge+db")
            self._start_accounting()
            lap("acct")
            self._start_controller_and_nodes()
            lap("ctl")
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
        accounting.wait_until_ready(lambda: _listens(self.place.database_port))
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
            "RADALIGN_TEST_DAEMON": f"{self.place.folder}/{name}",
        }
        log = self.place.folder / "log" / f"{name}.log"
        self._daemons[name] = Daemon(name, command, log, environment)
        return self._daemons[name]

    def stop(self) -> None:
        for name in reversed(list(self._daemons)):
            self._daemons.pop(name).stop()
        kill_marked("SLURM_CONF", str(self.place.slurm_conf))
        shutil.rmtree(self.place.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def node_state(self, node: str) -> str:
        return self.run("sinfo", "-h", "-N", "-p", "test", "-n", node, "-o", "%T", check=False)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
