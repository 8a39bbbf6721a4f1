"""A sweep on Slurm: one array, so many tasks at a time, and only what failed is submitted again."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
import yaml

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import validate
from tests.data_shards.building.whole import build_shards
from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import wait_until
from tests.slurm.jobs import CLUSTER, PATIENCE, Launcher

pytestmark = pytest.mark.timeout(600)
AT_MOST = 2


def test_a_sweep_with_a_failed_task_is_completed_by_the_same_command(
    launcher: Launcher, slurm: SlurmCluster, tiny_profile: Path, tmp_path: Path
) -> None:
    """One task of six lacks a shard, which is put back before the second time."""
    shards = Path(yaml.safe_load(tiny_profile.read_text())["data"]["shards"])
    shutil.copytree(shards, tmp_path / "shards")
    shard = tmp_path / "shards" / "train-000001.tar"
    shard.rename(tmp_path / shard.name)
    rows = [{"seed": seed, "data.shards": str(shards)} for seed in range(1, 6)]
    rows.append({"seed": 6, "data.shards": str(tmp_path / "shards")})
    points = tmp_path / "points.yaml"
    points.write_text(yaml.safe_dump(rows))
    folder = tmp_path / "six_seeds"
    command = (
        *("sweep", CLUSTER, "cpus_per_rank=1", f"running_at_most={AT_MOST}"),
        *("--folder", folder, "--points", points, "--", "pretrain", tiny_profile),
        *("training.max_steps=2", "training.validate_every_steps=2"),
    )

    said = launcher(*command)
    assert said.err == ""
    assert said.out.startswith("6 submitted; 6 tasks: ")
    at_once = wait_for_the_end(slurm, folder.name)
    assert max(at_once) == AT_MOST
    lines = launcher("status", folder).out.splitlines()
    assert sum(" finished " in line for line in lines) == 5
    [failed] = [number for number, line in enumerate(lines) if " failed " in line]
    assert "rank 0: error: " in lines[failed + 1]
    assert "train-000001.tar" in lines[failed + 1]
    table = launcher("results", folder).out.splitlines()
    assert [bool(re.search(r" [1-6] of [1-6] ", line)) for line in table[1:]].count(True) == 1
    states = [row["state"] for row in read_results(folder)]
    assert states == ["finished"] * 5 + ["failed"]

    (tmp_path / shard.name).rename(shard)
    assert launcher(*command).out.startswith("1 submitted; 6 tasks: 5 finished, 1 ")
    wait_for_the_end(slurm, folder.name)
    assert launcher(*command).out.startswith("0 submitted; 6 tasks: 6 finished\n")
    assert launcher("results", folder).status == 0
    rows_read = read_results(folder)
    assert [row["state"] for row in rows_read] == ["finished"] * 6
    assert len({row["total"] for row in rows_read}) == 6


@pytest.mark.slow  # tests/launch/test_boundaries.py has how its jobs are told
def test_downstream_tasks_and_their_seeds_are_an_array_that_fills_one_table(
    launcher: Launcher, slurm: SlurmCluster, tmp_path: Path
) -> None:
    drawn = {"archive": str(tmp_path / "archive"), "image_size_px": 64, "layout": "covid_rural"}
    counts = {"train_studies": 120, "validate_studies": 8, "test_studies": 8}
    values = {
        "phantom": drawn | counts,
        "source": {"name": "covid_rural"},
        "output": str(tmp_path / "shards"),
        "longest_side_px": 64,
        "split_sizes": {"validate_studies": 8, "test_studies": 8},
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    names = ("covid_linear", "covid_unet_frozen")
    suite = {
        "title": "two tasks",
        "run_folder": str(tmp_path / "suite"),
        "tables": ["configs/downstream/tables/lovt_table_1.yaml"],
        "tasks": [
            {"name": name, "profile": f"configs/downstream/tasks/{name}.yaml"} for name in names
        ],
        "encoder": {"image_encoder": {"backbone": "resnet18", "weights": None, "width": 0.125}},
        "method": "random",
        "overrides": [
            f"data.shards={tmp_path / 'shards'}",
            "data.image_size_px=64",
            "data.global_batch=4",
            "training.precision=float32",
            "training.max_steps=2",
            "training.validate_every_steps=1",
            "procedure.learning_rates=[0.1, 0.01]",
            "procedure.seeds=[0, 1]",
        ],
    }
    profile = tmp_path / "suite.yaml"
    profile.write_text(yaml.safe_dump(suite))
    folder = tmp_path / "array"
    each = ",".join(f"[{name}]" for name in names)
    command = (
        *("sweep", CLUSTER, "cpus_per_rank=1", "--folder", folder, "--"),
        *("downstream", profile, f"only={each}", "only_seeds=[0],[1]"),
    )
    assert launcher(*command).out.startswith("4 submitted; 4 tasks: ")
    wait_for_the_end(slurm, folder.name)
    assert launcher(*command).out.startswith("0 submitted; 4 tasks: 4 finished\n")
    assert launcher("results", folder).status == 0
    rows = read_results(folder)
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    assert len({row["dice"] for row in rows}) == 4, "each has its own seed's"
    # Two rates and two seeds of two tasks, each by one start.
    made = list((tmp_path / "suite").rglob("starts.jsonl"))
    assert [len(each.read_text().splitlines()) for each in made] == [1] * 8
    table = (tmp_path / "suite" / "tables.md").read_text()
    for name in names:
        assert re.search(rf"\| random \| {name} \| shards .*\| 2 \|", table)


def wait_for_the_end(slurm: SlurmCluster, name: str) -> set[int]:
    """How many jobs of that name ran at a time, seen often, until none waits or runs."""
    seen: set[int] = set()

    def ended() -> bool:
        words = slurm.run(
            "squeue", "--noheader", "--array", f"--name={name}", "--format=%T"
        ).split()
        seen.add(words.count("RUNNING"))
        return not words

    wait_until(ended, "all jobs have ended", PATIENCE * 2)
    return seen


def read_results(folder: Path) -> list[dict[str, str]]:
    """The rows of a sweep's CSV."""
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))
