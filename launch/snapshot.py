"""The code as it is when a job is submitted: a job that is requeued runs what was submitted."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("data_shards", "distributed_pretrain", "launch")


def take_snapshot(folder: Path) -> None:
    """Copy the packages, and the profiles that commands read by name, into `folder`."""
    for name in (*PACKAGES, "configs"):
        if (CHECKOUT / name).is_dir():
            shutil.copytree(
                CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )


@functools.cache
def revision() -> str | None:
    """The commit of the checkout, with `-dirty` when it was edited since; None outside git."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
