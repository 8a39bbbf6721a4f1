"""`python -m data_shards COMMAND ...`: shards built, checked and looked at."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from data_shards.starting import started

EXAMPLES = """\
examples:
  python -m data_shards build configs/shards/phantom.yaml output=runs/shards/phantom
  python -m data_shards build configs/shards/mimic_cxr.yaml source.root=/data/mimic workers=16
  python -m data_shards build configs/shards/mimic_cxr.yaml part=3/16
  python -m data_shards inspect configs/shards/rsna.yaml source.root=/data/rsna
  python -m data_shards verify configs/shards/phantom.yaml
  python -m data_shards preview configs/shards/phantom.yaml --split validate --samples 12

A build that was stopped goes on where it was when the same command is given again.
Parts 1/16 to 16/16 may run side by side on machines that share the output folder: together they
write what a whole build writes, and the last one to be done writes the manifest.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    # Here, so that a signal meanwhile ends the command as it does later: see `started`.
    from data_shards.command_line import run_command
    from data_shards.commands import COMMANDS

    return run_command(
        "data_shards",
        COMMANDS,
        arguments,
        description="Turn a raw archive of radiographs and reports into tar shards.",
        epilog=EXAMPLES,
    )


if __name__ == "__main__":
    sys.exit(started(main, as_ctrl_c=True))
