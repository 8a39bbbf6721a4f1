from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.grid.points import read_points
from distributed_pretrain.run_folder.step_folders import step_folder
from launch.__main__ import main
from launch.sweep import SWEEP_FILE, collect
from tests.launch.jobs import submitted

BEST_STEP = 20


def sweep_of(folder: Path, *words: str) -> list[Path]:
    """The task folders of a sweep that nobody has run."""
    points = read_points(words)
    tasks = [{"name": p.name, "words": p.words, "values": p.values} for p in points]
    (folder / SWEEP_FILE).write_text(json.dumps({"tasks": tasks}))
    return [folder / point.name for point in points]


def trained(folder: Path, profile: Path, *lines: dict[str, Any]) -> None:
    command = ("distributed_pretrain", "pretrain", str(profile), f"run_folder={folder}")
    submitted(folder, command=command).add("finished")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoints = folder / "checkpoints"
    step_folder(checkpoints, BEST_STEP).mkdir(parents=True)
    (checkpoints / "best").symlink_to(step_folder(checkpoints, BEST_STEP).name)


def validation(step: int, total: float, **more: float) -> dict[str, Any]:
    return {"step": step, "split": "validate", "total": total, **more}


def test_a_pretraining_is_its_best_validation(tmp_path: Path, tiny_profile: Path) -> None:
    [task, _] = sweep_of(tmp_path, "pretrain", str(tiny_profile), "seed=1,2")
    trained(
        task,
        tiny_profile,
        {"step": 5, "split": "train", "total": 0.1},
        validation(10, 3.0, retrieval=0.2),
        validation(BEST_STEP, 2.0, retrieval=0.3, pairs_per_second=900.0),
        validation(30, 2.5, retrieval=0.4),
    )
    [row, other], troubles = collect(tmp_path)
    assert troubles == []
    assert row == {
        **{"task": "seed=1", "state": "finished", "seed": "1"},
        **{"step": BEST_STEP, "total": 2.0, "retrieval": 0.3},
    }
    assert other == dict.fromkeys(row) | {"task": "seed=2", "state": "not submitted", "seed": "2"}


def test_an_evaluation_is_all_of_its_figures(tmp_path: Path) -> None:
    runs = [tmp_path / "runs" / name for name in ("clip", "lovt")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    (runs[0] / "evaluation_validate_best.json").write_text('{"auroc": 0.75}')
    words = ("evaluate", ",".join(map(str, runs)), "split=validate")
    for task, run in zip(sweep_of(tmp_path, *words), runs, strict=True):
        command = ("distributed_pretrain", "evaluate", str(run), "split=validate")
        submitted(task, command=command).add("finished")
    rows, _ = collect(tmp_path)
    assert [(row["task"], row["auroc"]) for row in rows] == [*(("clip", 0.75), ("lovt", None))]


def test_a_folder_without_a_sweep_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a sweep"):
        collect(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", '{"auroc": "high"}', "[" * 100_000, "\x00" * 300])
def test_figures_that_cannot_be_read_hide_no_others(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / "runs" / name for name in ("clip", "lovt")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
    (runs[0] / "evaluation_test_best.json").write_text(text)
    (runs[1] / "evaluation_test_best.json").write_text('{"auroc": 0.75}')
    for task, run in zip(
        sweep_of(tmp_path, "evaluate", ",".join(map(str, runs))), runs, strict=True
    ):
        submitted(task, command=("distributed_pretrain", "evaluate", str(run))).add("finished")
    assert main(["results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "75.0" in said.out or "0.75" in said.out
    assert "clip: no figures: " in said.err
    assert "evaluation_test_best.json: no figures by name: delete it" in said.err


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "[" * 100_000, "\x00", '{"tasks": 1}', '{"tasks": ["a"]}'),
        '{"tasks": [{"words": "evaluate", "values": {}}]}',
        '{"tasks": [{"words": ["evaluate"], "values": [1]}]}',
    ],
)
def test_a_damaged_list_of_tasks_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / SWEEP_FILE).write_text(text)
    with pytest.raises(InputError, match=r"sweep.json: not written by this release: delete it"):
        collect(tmp_path)
