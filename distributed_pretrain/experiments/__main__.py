"""`python -m distributed_pretrain.experiments JOB.json`: one run of a comparison, for `compare`."""

from __future__ import annotations

import sys
from pathlib import Path

from data_shards.starting import started


def main() -> int:
    """The exit status of the run."""
    # Here, so that a signal meanwhile is no death by it: see `started`.
    from data_shards.command_line import guarded
    from distributed_pretrain.experiments.compare import run_job

    return guarded(lambda: run_job(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(started(main))
