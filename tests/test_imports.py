"""What a launcher and `--help` import: no module that takes seconds."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import data_shards
import distributed_pretrain
import launch
from tests.paths import ROOT


def test_settings_and_commands_import_no_torch() -> None:
    modules = [
        module.name
        for package in (data_shards, distributed_pretrain, launch)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if module.name.rpartition(".")[2] in ("settings", "commands")
    ]
    assert {"data_shards.commands", "distributed_pretrain.commands", "launch.settings"} <= {
        *modules
    }
    assert "distributed_pretrain.methods.lovt.settings" in modules
    program = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(f'{name} imports torch')\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
