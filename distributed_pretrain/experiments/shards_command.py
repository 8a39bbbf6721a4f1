"""Shards built by the command a user would type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from data_shards.errors import InputError

CHECKOUT = Path(__file__).parents[2]


def build_shards(profile: Path, output: Path) -> None:
    """Run the builder; it skips what is done. Raises InputError if it fails."""
    command = [sys.executable, "-m", "data_shards", "build", str(profile), f"output={output}"]
    # This process may have been started from elsewhere than the checkout.
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise InputError("building the shards failed, see above: mend it and run this again")
