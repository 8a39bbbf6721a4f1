"""`python -m distributed_pretrain COMMAND ...`: training, evaluation, comparisons, benchmarks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_shards.starting import started


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 2 bad input, 75 interrupted or a rank lost (the command goes on)."""
    # Here, so that a signal meanwhile is no death by it: see `started`.
    from data_shards.command_line import run_command
    from distributed_pretrain.commands import COMMANDS

    return run_command(
        "distributed_pretrain",
        COMMANDS,
        arguments,
        description="Pre-training of chest X-ray encoders from radiology reports.",
    )


if __name__ == "__main__":
    sys.exit(started(main))
