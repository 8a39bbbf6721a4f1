"""Imports: what the launcher and `--help` do without, and what does not know each other."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from typing import Any, get_args

import grimp
import pytest
from grimp import ImportGraph

import data_shards
import distributed_pretrain
import launch
from data_shards.command_line import BAD_INPUT
from data_shards.sources.catalog import AnySourceConfig
from distributed_pretrain.downstream.protocols.catalog import AnyProtocolConfig
from distributed_pretrain.measures.catalog import EVALUATION, VALIDATION
from distributed_pretrain.methods.catalog import AnyMethodConfig
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "configs/pretrain/lovt_small.yaml", "seeed=1"], "did you mean 'seed'"),
        (["pretrain", "configs/pretrain/lovt_small.yaml", "data.shards=none"], "no manifest"),
        (["evaluate", "none"], "not a run folder"),
        (["compare", "configs/compare/phantom_regions.yaml", "sedes=[0]"], "did you mean 'seeds'"),
    ],
    ids=["a key", "shards", "a run", "a key of a comparison"],
)
def test_what_cannot_start_is_told_before_torch_is_imported(words: list[str], said: str) -> None:
    program = (
        "import sys\n"
        "from distributed_pretrain.__main__ import main\n"
        f"status = main({words})\n"
        "sys.exit(99 if 'torch' in sys.modules else status)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == BAD_INPUT, process.stderr
    assert said in process.stderr


@pytest.mark.parametrize("kind", ["methods", "measures", "sources", "protocols"])
def test_those_of_a_kind_do_not_know_each_other(kind: str, imports: ImportGraph) -> None:
    """Read from the catalogues, so that a new one is held to it without being listed here."""
    listed = {module.removesuffix(".settings") for module in LISTED[kind]}
    assert len(listed) > 1
    for one in listed:
        own = {one, *imports.find_descendants(one)}
        for module in own:
            known = imports.find_modules_directly_imported_by(module) - own
            others = {
                each for each in known for other in listed if f"{each}.".startswith(f"{other}.")
            }
            assert not others, f"{module} imports {others}: what they share belongs in a base"


@pytest.fixture(scope="module")
def imports() -> ImportGraph:
    return grimp.build_graph("data_shards", "distributed_pretrain")


def _modules_of(union: Any) -> list[str]:
    """Where the settings of a discriminated union are defined."""
    return [settings.__module__ for settings in get_args(get_args(union)[0])]


LISTED = {
    "methods": _modules_of(AnyMethodConfig),
    "measures": [kind.__module__ for kind in (*VALIDATION, *EVALUATION)],
    "sources": _modules_of(AnySourceConfig),
    "protocols": _modules_of(AnyProtocolConfig),
}
