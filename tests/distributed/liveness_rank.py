"""One rank of the liveness tests, and what befalls it."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from data_shards.errors import InputError
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.faults.messages import PeerError

TIMEOUT_SECONDS = 2.0
VICTIM_STEP = 5
LAST_STEP = 30


@dataclass(frozen=True)
class Scenario:
    """`fate` befalls the rank `victim` while the others are in the next collective (or compute)."""

    fate: str
    victim: int = 1
    ranks: int = 2
    others_compute: bool = False
    others_save: bool = False
    group_timeout_seconds: float = 600.0
    hang_timeout_seconds: float | None = None


def run(scenario: Scenario, agent_port: int | None) -> None:
    """Train, and leave as a command does: with its status, and its lines on stderr.

    `agent_port` is that of a store outside the ranks, as torchrun has.
    """
    if agent_port is not None:
        os.environ |= {"MASTER_PORT": str(agent_port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    rank = int(os.environ["RANK"])
    distributed.init_process_group(
        "gloo", timeout=timedelta(seconds=scenario.group_timeout_seconds)
    )
    try:
        train(rank, scenario)
    except PeerError as error:
        sys.exit(error.exit_status)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("finished", file=sys.stderr)


def train(rank: int, scenario: Scenario) -> None:
    with Liveness(
        rank=rank,
        world_size=scenario.ranks,
        timeout_seconds=TIMEOUT_SECONDS,
        interval_seconds=0.2,
        hang_timeout_seconds=scenario.hang_timeout_seconds,
    ) as liveness:
        exchange()
        if scenario.fate == "bad input of all":
            raise InputError("global_batch: not divisible")
        for step in range(1, LAST_STEP + 1):
            liveness.at(step, "data")
            time.sleep(0.02)
            if step == VICTIM_STEP:
                if rank == scenario.victim:
                    time.sleep(0.5)  # the others are in the collective, or in their computation
                    befall(scenario.fate)
                elif scenario.others_compute:
                    time.sleep(600)
                elif scenario.others_save:
                    with liveness.kept_alive():
                        time.sleep(TIMEOUT_SECONDS + 1.5)
                        print("saved", file=sys.stderr)
            liveness.at(step, "compute")
            exchange()
        # Ends the store too where rank 0 hosts it, were it not for the rank's own connection.
        distributed.destroy_process_group()
        if scenario.fate == "finishes late" and rank == scenario.victim:
            time.sleep(1.5)


def exchange() -> None:
    distributed.all_reduce(torch.ones(1000))


def befall(fate: str) -> None:
    if fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fate == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fate == "bad input":
        raise InputError("data.shards: no such folder")
    elif fate == "bug":
        raise RuntimeError("index out of range\nsecond line")
    elif fate == "hangs":
        time.sleep(600)
