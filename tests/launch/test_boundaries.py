"""What the launcher knows of the commands it starts: the tables that list them, and no more."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from data_shards.command_line import DONE, Command
from data_shards.profiles import Config
from launch import invocation
from launch.__main__ import main
from launch.invocation import PACKAGES
from launch.records import new_job_folder
from launch.settings import ClusterConfig
from launch.submit import rank_task
from launch.sweep import dry_run_sweep
from tests.launch.jobs import submitted
from tests.paths import ROOT

CPU = str(ROOT / "configs" / "cluster" / "slurm_cpu.yaml")
SOURCES = sorted((ROOT / "launch").glob("*.py"))
# A shell's word too, which scripts are made of.
OF_A_SHELL = {"export"}
VERBS = sorted({command.name for table in PACKAGES.values() for command in table} - OF_A_SHELL)


def _said(path: Path) -> list[str]:
    """The text of a module, without docstrings."""
    tree = ast.parse(path.read_text())
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


def test_there_are_sources_and_verbs() -> None:
    assert len(SOURCES) > 10
    assert len(VERBS) > 6


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_launcher_names_no_verb(path: Path) -> None:
    named = re.compile(rf"\b({'|'.join(VERBS)})\b")
    assert [text for text in _said(path) if named.search(text)] == []


class _TaskConfig(Config):
    """Settings of a verb that no table has."""

    task: str = "detection"
    output: Path = Path("there")


def _verb(
    goes_on_by: Literal["steps", "tasks", "nothing"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts `fine_tune` into the table."""
    fine_tune = Command(
        "fine_tune",
        help="a verb like those to come",
        settings=_TaskConfig,
        folder="output",
        goes_on_by=goes_on_by,
        run=lambda *_: DONE,
    )
    package = "distributed_pretrain"
    monkeypatch.setitem(invocation.PACKAGES, package, (*PACKAGES[package], fine_tune))


@pytest.mark.parametrize("goes_on_by", ["steps", "tasks", "nothing"])
def test_a_new_verb_is_submitted_as_its_table_says(
    goes_on_by: Literal["steps", "tasks", "nothing"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _verb(goes_on_by, monkeypatch)
    profile = tmp_path / "a.yaml"
    profile.write_text(f"output: {tmp_path / 'out'}\n")
    read = invocation.read_invocation(["fine_tune", str(profile)])
    task = rank_task(ClusterConfig(), read, new_job_folder(tmp_path, "fine_tune"))
    assert task.goes_on_by == goes_on_by
    assert task.threads == ClusterConfig().cpus_per_rank
    on_gpus = ClusterConfig(gpus_per_node=4, cpus_per_rank=8)
    assert rank_task(on_gpus, read, new_job_folder(tmp_path, "fine_tune")).threads == 2
    assert main(["submit", CPU, "--dry-run", "--", "fine_tune", str(profile)]) == 0
    assert "-P -m distributed_pretrain fine_tune" in capsys.readouterr().out
    assert main(["submit", CPU, "--", "fine-tune", str(profile)]) == 2
    assert "fine_tune PROFILE.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("goes_on_by", ["steps", "tasks"])
def test_a_sweep_gives_a_folder_to_what_goes_on_by_its_steps(
    goes_on_by: Literal["steps", "tasks"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed_pretrain.experiments.grid.points import read_points

    _verb(goes_on_by, monkeypatch)
    profile = tmp_path / "a.yaml"
    profile.write_text("")
    points = read_points(["fine_tune", str(profile), "task=detection,labels"])
    said = dry_run_sweep(ClusterConfig(), points, tmp_path / "sweep")
    own = f"output={tmp_path / 'sweep' / 'task=labels'}"
    assert (own in said) == (goes_on_by == "steps")


def test_a_list_of_tasks_goes_on_by_them_where_one_task_goes_on_by_its_steps(
    tmp_path: Path,
) -> None:
    from distributed_pretrain.experiments.grid.points import read_points

    words = [
        "downstream",
        "configs/downstream/phantom.yaml",
        "encoder=random",
        f"run_folder={tmp_path}",
    ]
    suite = invocation.read_invocation([*words, "only=[nih_linear]"])
    task = invocation.read_invocation(
        ["downstream", "configs/downstream/tasks/nih_linear.yaml", "encoder=random"]
    )
    job = new_job_folder(tmp_path, "downstream")
    assert rank_task(ClusterConfig(), suite, job).goes_on_by == "tasks"
    assert rank_task(ClusterConfig(), task, job).goes_on_by == "steps"
    # A sweep over the tasks of a list: each a job, all with the list's folder.
    points = read_points([*words, "only=[nih_linear],[covid_linear]"])
    said = dry_run_sweep(ClusterConfig(), points, tmp_path / "sweep")
    assert "only=[covid_linear]" in said
    assert f"run_folder={tmp_path / 'sweep'}" not in said
    figures = tmp_path / suite.settings.row / "nih_linear" / "evaluation_test_best.json"  # type: ignore[attr-defined]
    assert suite.figures == {}
    figures.parent.mkdir(parents=True)
    figures.write_text('{"dice": 0.5}')
    assert suite.figures == {"dice": 0.5}


def _modules(arguments: list[str]) -> dict[str, Any]:
    """The exit status of `python -m launch ARGUMENTS`, and which modules that imports."""
    code = (
        "import json, sys\n"
        "from launch.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print(json.dumps({'status': status, 'modules': list(sys.modules)}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_dry_run_and_a_status_cost_no_torch(tmp_path: Path, tiny_profile: Path) -> None:
    """Torch alone would take longer than the two seconds that they may."""
    submitted(tmp_path / "run").add("finished")
    words = ["pretrain", str(tiny_profile), f"run_folder={tmp_path / 'other'}"]
    for arguments in (
        ["submit", CPU, "--dry-run", "--", *words],
        ["status", str(tmp_path / "run")],
        ["results", str(_a_sweep(tmp_path))],
    ):
        found = _modules(arguments)
        assert found["status"] == 0
        heavy = {"torch", "torchvision", "transformers", "matplotlib", "deepspeed", "accelerate"}
        assert heavy.isdisjoint(found["modules"]), arguments
        # Today 610; torch alone brings a thousand.
        assert len(found["modules"]) < 900


def _a_sweep(folder: Path) -> Path:
    (folder / "sweep").mkdir()
    task = {"words": ["evaluate", "run"], "values": {"of": "run"}}
    (folder / "sweep" / "sweep.json").write_text(json.dumps({"tasks": [task]}))
    return folder / "sweep"
