import subprocess
import sys


def test_whoever_only_asks_what_commands_there_are_loads_nothing_heavy() -> None:
    """Profiles are read by the launcher too, which draws, decodes and trains nothing."""
    asked = (
        "import sys, data_shards.commands;"
        "print([name for name in ('torch', 'numpy', 'PIL', 'webdataset') if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert finished.stdout == "[]\n", finished.stderr
