"""Folders of jobs by odd names: refused where a script would read another, quoted elsewhere."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.grid.points import read_points
from launch.__main__ import main
from launch.script import refuse_folder
from launch.settings import ApptainerConfig, ClusterConfig, PyxisConfig
from tests.launch.jobs import submitted
from tests.paths import ROOT

CPU = str(ROOT / "configs" / "cluster" / "slurm_cpu.yaml")
ODD = 'sp ace (a)="0" $HOME `x`;it\'s'


@pytest.mark.parametrize("name", ["%j", "a%A_%a", "%", "100%", "a:b", "a\\b", "a\nb", "a\tb"])
@pytest.mark.parametrize("executor", ["slurm", "local", "debug"])
def test_a_folder_that_a_script_would_read_as_another_is_refused(
    name: str,
    executor: str,
    tmp_path: Path,
    tiny_profile: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, folder = tmp_path / "a.yaml", tmp_path / name
    profile.write_text(json.dumps({"extends": str(tiny_profile), "run_folder": str(folder)}))
    cluster, one = [CPU, f"executor={executor}"], ["--", "pretrain", str(profile)]
    several = ["--folder", str(folder), *one, "seed=1,2"]
    for words in (
        ["submit", *cluster, *one],
        ["submit", *cluster, "--dry-run", *one],
        ["sweep", *cluster, *several],
        ["sweep", *cluster, "--dry-run", *several],
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "rename it" in said, words
    assert list(tmp_path.iterdir()) == [profile]


@pytest.mark.parametrize("container", [PyxisConfig(image="a"), ApptainerConfig(image="a")])
def test_a_comma_ends_a_mount_of_a_container(
    container: PyxisConfig | ApptainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, there = ClusterConfig(container=container), tmp_path / "a,b"
    there.mkdir()
    refuse_folder(there, ClusterConfig())
    with pytest.raises(InputError, match="',' in the folder of a job: the mounts of containers"):
        refuse_folder(there, cluster)
    monkeypatch.chdir(there)
    with pytest.raises(InputError, match="the mounts of containers"):
        refuse_folder(Path("/runs/a"), cluster)


def test_what_is_to_be_typed_next_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = tmp_path / "run", tmp_path / ODD
    run.mkdir()
    (run / "config.yaml").touch()
    command = ["evaluate", str(run), "checkpoint=untrained", "split=validate,test"]
    for point in read_points(command):
        submitted(folder / point.name).add("finished")
    assert main(["sweep", CPU, "executor=local", "--folder", str(folder), "--", *command]) == 0
    _, watch, figures = capsys.readouterr().out.splitlines()
    assert shlex.split(watch) == ["watch:", "python", "-m", "launch", "status", str(folder)]
    assert shlex.split(figures) == ["figures:", "python", "-m", "launch", "results", str(folder)]
    # And what was pasted is understood.
    assert main(shlex.split(watch)[4:]) == 0
