"""Every verb of the three packages is really started, at tiny sizes, and what it prints is read.

In one process that has imported everything: a start of Python takes longer than most verbs here. A
new verb of a table fails the first test until it is started here or in a test that is named here.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import data_shards.__main__
import distributed_pretrain.__main__
import launch.__main__
from distributed_pretrain.commands import BENCHMARKS
from launch.commands import _parser
from launch.invocation import PACKAGES
from launch.records import newest_job
from tests.paths import CONFIGS, ROOT

pytestmark = pytest.mark.xdist_group("verbs")

MAIN = {
    "data_shards": data_shards.__main__.main,
    "distributed_pretrain": distributed_pretrain.__main__.main,
    "launch": launch.__main__.main,
}
EXPERIMENTS = "tests/distributed_pretrain/experiments"
BENCHMARK_TESTS = "tests/distributed_pretrain/benchmark/test_every_benchmark.py"
# Those with many runs of their own.
ELSEWHERE = {
    "data_shards beton": "tests/data_shards/beton/test_beton.py",
    "distributed_pretrain quickstart": f"{EXPERIMENTS}/test_quickstart.py",
    "distributed_pretrain compare": f"{EXPERIMENTS}/test_compare.py",
    "distributed_pretrain benchmark": BENCHMARK_TESTS,
    "distributed_pretrain doctor": "tests/distributed_pretrain/handover/test_doctor.py",
    "distributed_pretrain serve": "tests/distributed_pretrain/handover/test_serve.py",
    "distributed_pretrain export": "tests/distributed_pretrain/handover/test_export.py",
}
DEBUG = (str(CONFIGS / "cluster" / "slurm_cpu.yaml"), "executor=debug")
Said = tuple[str, str]
Start = Callable[..., Said]


def words_of(path: Path, *, called: str | None = None) -> set[str]:
    """The texts in a module's code; of the calls of `called`, the first argument."""
    calls = (each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call))
    found = [
        each.args[0] for each in calls if each.args and called in (None, ast.unparse(each.func))
    ]
    if called is None:
        found = [
            each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.expr)
        ]
    return {str(each.value) for each in found if isinstance(each, ast.Constant)}


def verbs() -> set[str]:
    """Package and verb of all tables."""
    actions = _parser()._actions
    of_launch = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    every = {f"launch {verb}" for verb in of_launch.choices}
    return every | {f"{package} {each.name}" for package in PACKAGES for each in PACKAGES[package]}


def test_every_verb_is_started_here_or_where_it_says() -> None:
    here = {name.removeprefix("test_the_verb_") for name in globals() if "test_the_verb_" in name}
    assert {re.sub("[ -]", "_", each) for each in verbs() - ELSEWHERE.keys()} == here
    assert ELSEWHERE.keys() <= verbs()
    for verb, path in ELSEWHERE.items():
        assert verb.partition(" ")[2] in words_of(ROOT / path), f"{path} starts no {verb}"


def test_every_benchmark_is_started() -> None:
    assert words_of(ROOT / BENCHMARK_TESTS, called="start") == set(BENCHMARKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verbs")


@pytest.fixture
def start(capsys: pytest.CaptureFixture[str]) -> Start:
    """`python -m PACKAGE WORDS`: what it prints, and what it says on stderr."""

    def start(package: str, *words: str | Path, status: int = 0) -> Said:
        capsys.readouterr()
        ended = MAIN[package]([str(word) for word in words])
        said = capsys.readouterr()
        assert ended == status, said.err
        return said.out, said.err

    return start


@pytest.fixture(scope="module")
def shards_profile(folder: Path) -> Path:
    """Of a phantom of 22 studies; built by the first test, and by whoever comes without it."""
    path = folder / "shards.yaml"
    path.write_text(
        f"extends: {CONFIGS / 'shards' / 'phantom.yaml'}\n"
        f"phantom: {{archive: {folder / 'archive'}, image_size_px: 64, train_studies: 12,"
        " validate_studies: 4, test_studies: 6}\n"
        f"output: {folder / 'shards'}\nlongest_side_px: 64\nworkers: 1\n"
    )
    assert MAIN["data_shards"](["build", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def tiny(shards_profile: Path) -> tuple[str, ...]:
    """Overrides of a pre-training, in a second."""
    return (
        f"data.shards={shards_profile.parent / 'shards'}",
        *("data.image_size_px=64", "data.global_batch=4", "method.image_encoder.width=0.125"),
        *("training.max_steps=1", "training.pictures=false", "training.validate_every_steps=1"),
    )


@pytest.fixture(scope="module")
def run(folder: Path, tiny: tuple[str, ...]) -> Path:
    profile = str(CONFIGS / "pretrain" / "phantom_lovt.yaml")
    words = ["pretrain", profile, f"run_folder={folder / 'run'}", *tiny]
    assert MAIN["distributed_pretrain"](words) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def sweep(folder: Path, run: Path) -> Path:
    """Two evaluations, as jobs in this process."""
    words = ["--", "evaluate", str(run), "labelled_studies=8", "split=validate,test"]
    at = ["--folder", str(folder / "sweep")]
    assert MAIN["launch"](["sweep", *DEBUG, *at, *words]) == 0
    return folder / "sweep"


def test_the_verb_data_shards_build(start: Start, shards_profile: Path) -> None:
    printed, _ = start("data_shards", "build", shards_profile)
    counts = {words[0]: words[2] for line in printed.splitlines() if (words := line.split())[2:]}
    assert (counts["train"], counts["validate"], counts["test"]) == ("12", "4", "6")


def test_the_verb_data_shards_verify(start: Start, shards_profile: Path) -> None:
    printed, _ = start("data_shards", "verify", shards_profile)
    assert "22 studies" in printed or "22 samples" in printed


def test_the_verb_data_shards_preview(start: Start, shards_profile: Path) -> None:
    printed, _ = start("data_shards", "preview", shards_profile, "--samples", "3")
    path = next(Path(word) for word in printed.split() if word.endswith(".png"))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_verb_data_shards_inspect(start: Start, shards_profile: Path) -> None:
    printed, _ = start("data_shards", "inspect", shards_profile)
    assert "found: 22 studies" in printed
    assert "splits: 12 train, 4 validate, 6 test" in printed


def test_the_verb_data_shards_overlap(start: Start, shards_profile: Path, folder: Path) -> None:
    shards, save = shards_profile.parent / "shards", folder / "overlap.json"
    printed, _ = start("data_shards", "overlap", shards, shards, "--save", save)
    images = printed.split(" images")[0].split()[-1]
    assert f"images of one id: {images} (" in printed
    assert len(json.loads(save.read_text())["images"]) == int(images)


def test_the_verb_data_shards_text_report(start: Start, shards_profile: Path) -> None:
    printed, _ = start("data_shards", "text-report", shards_profile.parent / "shards")
    assert printed.startswith("22 studies in ")
    assert "  lovt: 22 kept" in printed


def test_the_verb_distributed_pretrain_pretrain(
    start: Start, folder: Path, tiny: tuple[str, ...], run: Path
) -> None:
    profile = CONFIGS / "pretrain" / "phantom_lovt.yaml"
    _, said = start("distributed_pretrain", "pretrain", profile, f"run_folder={run}", *tiny)
    assert said.endswith(f"{run}: already complete\n")
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1


def test_the_verb_distributed_pretrain_evaluate(start: Start, run: Path) -> None:
    printed, said = start("distributed_pretrain", "evaluate", run, "labelled_studies=8")
    figures = dict(line.split() for line in printed.splitlines())
    assert float(figures["samples"]) == 6
    assert {"recall_at_5", "grounding_cnr", "linear_dice", "linear_auroc"} <= figures.keys()
    assert said.startswith("written to ")


def test_the_verb_distributed_pretrain_downstream(start: Start, folder: Path, run: Path) -> None:
    printed, _ = start(
        *("distributed_pretrain", "downstream", CONFIGS / "downstream" / "phantom_linear.yaml"),
        *(f"run_folder={folder / 'head'}", f"encoder.run_folder={run}"),
        *(f"data.shards={folder / 'shards'}", "data.image_size_px=64", "data.global_batch=4"),
        *("data.labels=[Cardiomegaly]", "training.max_steps=1", "training.best_metric=total"),
    )
    assert "total" in dict(line.split() for line in printed.splitlines())


def test_the_verb_distributed_pretrain_memory(start: Start, tiny: tuple[str, ...]) -> None:
    profile = CONFIGS / "pretrain" / "phantom_lovt.yaml"
    words = (*tiny, "training.device_memory_gib=40", "--ranks", "2")
    printed, _ = start("distributed_pretrain", "memory", profile, *words)
    assert "weights" in printed
    assert printed.endswith("fits a device with 40.00 GiB\n")
    _, said = start(
        *("distributed_pretrain", "memory", profile, *tiny, "training.device_memory_gib=0.5"),
        status=2,
    )
    assert "error: a device needs about " in said


def test_the_verb_launch_submit(start: Start, folder: Path, run: Path) -> None:
    words = ("evaluate", run, "split=validate", "labelled_studies=8")
    printed, _ = start("launch", "submit", *DEBUG, "--", *words)
    assert "samples" in printed
    job = newest_job(run)
    assert job is not None
    assert [each.event for each in job.events()] == ["started", "finished"]


def test_the_verb_launch_sweep(start: Start, run: Path, sweep: Path) -> None:
    words = ("evaluate", run, "labelled_studies=8", "split=validate,test")
    printed, _ = start("launch", "sweep", *DEBUG, "--folder", sweep, "--", *words)
    assert printed.startswith("0 submitted; 2 tasks: 2 finished\n")


def test_the_verb_launch_status(start: Start, sweep: Path) -> None:
    printed, _ = start("launch", "status", sweep)
    header, *rows = printed.splitlines()
    assert header.split()[:2] == ["folder", "state"]
    assert [row.split()[1] for row in rows] == ["finished", "finished"]


def test_the_verb_launch_results(start: Start, sweep: Path) -> None:
    printed, said = start("launch", "results", sweep)
    assert "validate" in printed
    assert said == f"written to {sweep / 'results.csv'}\n"


def test_the_verb_launch_logs(start: Start, sweep: Path) -> None:
    _, said = start("launch", "logs", sweep / "split=test", status=2)
    assert "executor=debug keeps no log: it wrote to its terminal" in said


def test_the_verb_launch_cancel(start: Start, sweep: Path) -> None:
    printed, _ = start("launch", "cancel", sweep)
    assert printed == "no job was waiting or running\n"
