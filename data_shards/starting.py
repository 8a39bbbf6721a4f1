"""The first seconds of a command, in which its packages are imported: what a signal does then.

Imports take seconds, and a signal in them would kill the process, or end it with a traceback. So
this imports the standard library alone, and commands import the rest after they have come here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

# Ctrl-C; the end of an allocation, and torchrun to the ranks beside a dead one; Slurm's warning
# before the time limit or a preemption, as submitit asks for it.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
# sysexits' EX_TEMPFAIL: not done, and the same command goes on ("start me again").
GOES_ON = 75
# What a shell says of SIGINT.
INTERRUPTED = 128 + signal.SIGINT
_WHAT_FOLLOWS = "what is finished is kept, and the same command goes on"
INTERRUPTED_LINE = f"error: interrupted: {_WHAT_FOLLOWS}"


def started(main: Callable[[], int], *, as_ctrl_c: bool = False) -> int:
    """What `main` returns, or the status of a signal that comes where nothing else waits for one.

    SIGTERM and SIGUSR2 end the process at once with `GOES_ON`, by which a scheduler knows that it
    is to be started again: extensions drop exceptions that are raised while they are imported.
    `as_ctrl_c`: they are KeyboardInterrupt, as Ctrl-C always is, for who has to clean up. That ends
    with `INTERRUPTED`.
    """
    for number in ENDING_SIGNALS if as_ctrl_c else (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, _interrupt if as_ctrl_c else _leave)
    try:
        return main()
    except KeyboardInterrupt:
        say_once(INTERRUPTED_LINE)
        return INTERRUPTED


def _leave(number: int, _: object) -> None:
    # torchrun ends the ranks beside one that has failed: that one has said why.
    if (folder := _folder_of_ranks()) is None or not any(folder.glob("said-*")):
        say_once(f"error: told to end by {signal.Signals(number).name}: {_WHAT_FOLLOWS}")
    os._exit(GOES_ON)


def _interrupt(*_: object) -> None:
    # Slurm says it twice: the second must not disturb the cleaning up.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def say_once(line: str) -> None:
    """Print a line on stderr; of the ranks of a node that torchrun started, one says it.

    What is wrong with a profile is wrong on every rank. torchrun gives the ranks of a node a folder
    for their errors, new at each start: whoever is the first to say a line leaves its mark there.
    """
    if _is_first(line):
        print(line, file=sys.stderr, flush=True)


def launcher_number(name: Literal["RANK", "WORLD_SIZE", "LOCAL_RANK"]) -> int | None:
    """What the launcher of this process (torchrun, say) has put there; None without one."""
    return int(os.environ[name]) if name in os.environ else None


def _is_first(line: str) -> bool:
    if (folder := _folder_of_ranks()) is None:
        return True
    try:
        (folder / f"said-{sha256(line.encode()).hexdigest()[:16]}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # said twice rather than never
        return True
    return True


def _folder_of_ranks() -> Path | None:
    """Where torchrun keeps a folder for each rank of this node, at this start."""
    # FOLDER/RANK/error.json
    error_file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    return error_file.parents[1] if error_file.parent.name.isdecimal() else None
