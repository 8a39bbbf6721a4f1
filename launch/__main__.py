"""`python -m launch COMMAND ...`: commands of the project as jobs of a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_shards.starting import started


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 when something that was waited for failed, 2 bad input."""
    # Here, so that a signal meanwhile is no death by it: see `started`.
    from launch.commands import run

    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(started(main))
