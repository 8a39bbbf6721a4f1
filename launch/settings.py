"""What a cluster profile says: where a job runs, with what, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data_shards.profiles import Config

# Options by the field that sets them, None: the launcher. A second value would decide by its place.
_TAKEN_SBATCH_OPTIONS: dict[str | None, set[str]] = {
    **{each: {each} for each in ("account", "constraint", "exclude", "nodes", "partition", "qos")},
    "cpus_per_rank": {"cpus-per-task"},
    "gpus_per_node": {"gpus", "gpus-per-node", "gpus-per-task", "gres"},
    "memory_gb_per_node": {"mem", "mem-per-cpu", "mem-per-gpu"},
    "ranks_per_node": {"ntasks", "ntasks-per-node"},
    "running_at_most": {"array"},
    "signal_seconds": {"signal"},
    "time_minutes": {"time"},
    None: {"error", "job-name", "no-requeue", "open-mode", "output", "requeue"},
}
_SECRET = re.compile(
    r"(?:[A-Za-z0-9]+_)*(?:SECRET|TOKEN|PASSWORD|PASSWD|KEY|APIKEY|AUTH|CREDENTIALS?)(?:_[A-Za-z0-9]+)*",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_OPTION = re.compile(r"[a-z][a-z0-9-]+")

ExecutorName: TypeAlias = Literal["slurm", "local", "debug"]


def refuse_secrets(names: Iterable[str], *, where: str) -> None:
    """Raise ValueError for the first name of a variable that looks like a secret's."""
    for name in names:
        if _SECRET.fullmatch(name):
            raise ValueError(
                f"{where}: {name} looks like a secret, and the script is a readable file: export "
                "it in the shell that submits, or read it from a file in environment.setup"
            )


class EnvironmentConfig(Config):
    """What is set up on every node before the ranks start.

    `modules` are loaded first (`module load`), then `setup` lines of bash run, then `variables`
    are exported. `venv` is the environment whose Python runs; null: the one that submits.
    """

    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    variables: dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]] = Field({})
    venv: Path | None = None

    @model_validator(mode="after")
    def _variables_are_public(self) -> Self:
        for name in self.variables:
            if not (name.isascii() and name.isidentifier()):
                raise ValueError(f"variables: {name!r} is not the name of a variable")
        refuse_secrets(self.variables, where="variables")
        refuse_secrets(_ASSIGNED.findall("\n".join(self.setup)), where="setup")
        return self


class _ImageConfig(Config):
    """`mounts` are SRC:DST, besides the submitting folder."""

    image: str
    mounts: tuple[str, ...] = ()
    python: str = "python"


class PyxisConfig(_ImageConfig):
    """An image run by srun itself (NVIDIA's pyxis and enroot)."""

    name: Literal["pyxis"] = "pyxis"


class ApptainerConfig(_ImageConfig):
    """An image run by Apptainer (or Singularity) on each node."""

    name: Literal["apptainer"] = "apptainer"


ContainerConfig: TypeAlias = Annotated[PyxisConfig | ApptainerConfig, Field(discriminator="name")]


class NcclConfig(Config):
    """NCCL's settings that clusters differ in; null leaves NCCL its own choice.

    `socket_interface` (ib0, or ^lo) is NCCL_SOCKET_IFNAME, `infiniband_devices` (mlx5) NCCL_IB_HCA;
    `infiniband` and `peer_to_peer` false are NCCL_IB_DISABLE=1 and NCCL_P2P_DISABLE=1.
    """

    debug: Literal["VERSION", "WARN", "INFO", "TRACE"] = "WARN"
    socket_interface: str | None = None
    infiniband_devices: str | None = None
    infiniband: bool | None = None
    peer_to_peer: bool | None = None

    @property
    def variables(self) -> dict[str, str]:
        """As NCCL reads them."""
        switched_off = {None: None, True: "0", False: "1"}
        wanted = {
            "NCCL_DEBUG": self.debug,
            "NCCL_SOCKET_IFNAME": self.socket_interface,
            "NCCL_IB_HCA": self.infiniband_devices,
            "NCCL_IB_DISABLE": switched_off[self.infiniband],
            "NCCL_P2P_DISABLE": switched_off[self.peer_to_peer],
        }
        # Gloo connects the ranks too, for heartbeats and on CPUs.
        if self.socket_interface is not None and not self.socket_interface.startswith("^"):
            wanted["GLOO_SOCKET_IFNAME"] = self.socket_interface
        return {name: value for name, value in wanted.items() if value is not None}


class ClusterConfig(Config):
    """A cluster profile (`configs/cluster/`). One task is one rank, and has one GPU.

    `executor`: `slurm`; `local`, the same ranks as processes of this machine; `debug`, one rank in
    the process that submits. `signal_seconds` before the time limit the ranks are told to save:
    more than a step and a save take. A job is requeued at most `requeues` times. Null are one rank
    a GPU, or one where there is none (`ranks_per_node`), and the partition's memory. Of a sweep
    `running_at_most` jobs run at the same time. `sbatch` holds more options, without dashes, `srun`
    more with them (--cpu-bind=cores). Rank 0 listens on `master_port` (null: one that is free, kept
    until it is used).
    """

    executor: ExecutorName = "slurm"
    nodes: PositiveInt = 1
    gpus_per_node: NonNegativeInt = 0
    ranks_per_node: PositiveInt | None = None
    cpus_per_rank: PositiveInt = 1
    memory_gb_per_node: PositiveFloat | None = None
    time_minutes: PositiveInt = 60
    signal_seconds: PositiveInt = 120
    requeues: NonNegativeInt = 20
    running_at_most: PositiveInt = 16
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    sbatch: dict[str, str | int | bool] = Field({})
    srun: tuple[str, ...] = ()
    environment: EnvironmentConfig = EnvironmentConfig()
    container: ContainerConfig | None = None
    nccl: NcclConfig = NcclConfig()
    master_port: PositiveInt | None = None

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.gpus_per_node and self.ranks_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"ranks_per_node={self.ranks_per_node} with gpus_per_node={self.gpus_per_node}: "
                "a rank has a GPU of its own: leave ranks_per_node out"
            )
        if self.signal_seconds >= self.time_minutes * 60:
            raise ValueError(
                f"signal_seconds={self.signal_seconds} is not below time_minutes="
                f"{self.time_minutes}: nothing would be left to train in"
            )
        words = "\n".join([*self.srun, *map(str, self.sbatch.values())])
        refuse_secrets(_ASSIGNED.findall(words), where="sbatch, srun")
        for option in self.sbatch:
            plain = option.replace("_", "-")
            if not _OPTION.fullmatch(plain):
                raise ValueError(f"sbatch: {option}: write the long name, without dashes before it")
            for field, taken in _TAKEN_SBATCH_OPTIONS.items():
                if plain in taken:
                    remedy = f"set {field}" if field else "the launcher sets it"
                    raise ValueError(f"sbatch: {option}: {remedy}")
        if self.executor != "slurm" and self.container is not None:
            raise ValueError(f"container: executor={self.executor} starts none: set container=null")
        return self

    @property
    def ranks_on_node(self) -> int:
        """Ranks of one node."""
        return self.ranks_per_node or self.gpus_per_node or 1

    @property
    def ranks(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.ranks_on_node
