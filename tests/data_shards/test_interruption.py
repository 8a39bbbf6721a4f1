"""Signals that ask a run to save and leave."""

from __future__ import annotations

import os
import signal

import pytest

from data_shards.command_line import exit_status_of
from data_shards.errors import InputError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.training.faults.messages import PeerError, Verdict


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_only_raises_the_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with InterruptionFlag() as flag:
        raised = [flag.raised]
        os.kill(os.getpid(), number)
        raised.append(flag.raised)
    assert raised == [False, True]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("bad"), 2),
        (FileNotFoundError("gone"), 2),
        (ZeroDivisionError(), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(5), 5),
        (SystemExit(), 0),
        (SystemExit("why"), 1),
        (PeerError(Verdict("bad", exit_status=3, rank=1)), 3),
    ],
    ids=repr,
)
def test_every_error_has_the_status_that_its_command_leaves_with(
    error: BaseException, status: int
) -> None:
    assert exit_status_of(error) == status
