"""`radalign ...`, the console command: each of the three `python -m`, by a shorter name."""

from __future__ import annotations

import runpy
import sys

# What the first word stands for; any other is a verb of distributed_pretrain.
SHORT_NAMES = {"data": "data_shards", "launch": "launch"}


def main() -> None:
    """`radalign data ...`, `radalign launch ...`, and `radalign VERB ...` for all else.

    As `python -m` in everything, signals and exit statuses too: the package's `__main__` is run.
    """
    first = "".join(sys.argv[1:2])
    if first in SHORT_NAMES:
        del sys.argv[1]
    elif first in ("", "-h", "--help"):
        print("Shards: radalign data --help. Jobs: radalign launch --help. All else:")
    package = SHORT_NAMES.get(first, "distributed_pretrain")
    runpy.run_module(package, run_name="__main__", alter_sys=True)
