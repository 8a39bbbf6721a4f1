from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.grid.points import read_points
from distributed_pretrain.run_folder.step_folders import step_folder
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
    [row, other] = collect(tmp_path)
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
    assert [(row["task"], row["auroc"]) for row in collect(tmp_path)] == [
        *(("clip", 0.75), ("lovt", None))
    ]


def test_a_folder_without_a_sweep_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a sweep"):
        collect(tmp_path)
