import subprocess
import sys

import pytest

from data_shards.__main__ import main


def test_whoever_only_asks_what_commands_there_are_loads_nothing_heavy() -> None:
    """Profiles are read by the launcher too, which draws, decodes and trains nothing."""
    asked = (
        "import sys, data_shards.commands;"
        "print([name for name in ('torch', 'numpy', 'PIL', 'webdataset') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert finished.stdout == "[]\n", finished.stderr


def test_overrides_are_not_said_to_be_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["text-report"])
    assert capsys.readouterr().err.strip().endswith("arguments are required: SHARDS")
