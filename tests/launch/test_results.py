from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.points import read_points
from launch.results import Row, collect, results_table, write_results
from launch.sweep import SWEEP_FILE
from tests.launch.jobs import submitted


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


def validation(step: int, total: float, **more: float) -> dict[str, Any]:
    return {"step": step, "split": "validate", "total": total, **more}


def test_a_pretraining_is_its_best_validation(tmp_path: Path, tiny_profile: Path) -> None:
    [task, _] = sweep_of(tmp_path, "pretrain", str(tiny_profile), "seed=1,2")
    trained(
        task,
        tiny_profile,
        {"step": 5, "split": "train", "total": 0.1},
        validation(10, 3.0, retrieval=0.2),
        validation(20, 2.0, retrieval=0.3, pairs_per_second=900.0),
        validation(30, 2.5, retrieval=0.4),
    )
    [row, other] = collect(tmp_path)
    assert row == {
        **{"task": "seed=1", "state": "finished", "seed": "1"},
        **{"step": 20, "total": 2.0, "retrieval": 0.3},
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


def rows() -> list[Row]:
    figures = {("clip", "1"): 0.5, ("clip", "2"): 0.7, ("lovt", "1"): 0.9}
    return [
        {
            "task": f"{profile}__seed={seed}",
            "state": "finished" if (profile, seed) in figures else "failed",
            "profile": profile,
            "seed": seed,
            "auroc": figures.get((profile, seed)),
        }
        for profile in ("clip", "lovt")
        for seed in ("1", "2")
    ]


def test_the_table_averages_over_seeds() -> None:
    lines = results_table(rows(), values=["profile", "seed"]).split("\n")
    assert [line.split() for line in lines] == [
        ["profile", "finished", "auroc"],
        ["clip", "2", "of", "2", "0.6", "+-", "0.14"],
        ["lovt", "1", "of", "2", "0.9"],
    ]


def test_a_table_without_figures_counts_what_finished() -> None:
    failed: list[Row] = [{"task": "only", "state": "failed"}]
    assert results_table(failed, values=[]).split("\n") == ["finished", "0 of 1"]


def test_csv_leaves_out_what_is_missing(tmp_path: Path) -> None:
    write_results(rows(), tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["auroc"] for row in read] == ["0.5", "0.7", "0.9", ""]
    assert read[3]["state"] == "failed"


def test_parquet_reads_back_equal(tmp_path: Path) -> None:
    write_results(rows(), tmp_path / "results.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "results.parquet").to_pylist() == rows()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results.xlsx: .* a .csv or a .parquet"):
        write_results(rows(), tmp_path / "results.xlsx")
