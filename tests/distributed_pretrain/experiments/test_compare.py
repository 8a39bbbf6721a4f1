"""`compare` end to end, on a phantom of a few dozen studies and for a few steps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.compare import run_job
from distributed_pretrain.experiments.grid.pool import build_shards
from distributed_pretrain.experiments.pages.comparison import write_page
from distributed_pretrain.experiments.results import collect, fingerprint
from distributed_pretrain.experiments.settings import (
    ComparisonConfig,
    jobs_of,
    refuse_what_cannot_start,
)
from distributed_pretrain.measures.catalog import JUDGED_BY
from tests.paths import ROOT
from tests.tiny.run import Command

TINY = (
    "data.image_size_px=64",
    "data.global_batch=8",
    "training.validate_every_steps=3",
    "method.image_encoder.width=0.125",
)


def _shards_profile(folder: Path) -> Path:
    path = folder / "shards.yaml"
    path.write_text(
        f"extends: {ROOT / 'configs/shards/phantom_quickstart.yaml'}\n"
        f"phantom: {{archive: {folder / 'archive'}, image_size_px: 64, train_studies: 32,"
        " validate_studies: 8, test_studies: 12}\n"
        "longest_side_px: 64\n"
    )
    return path


def _profile(folder: Path) -> Path:
    """LoVT, its ablation that is to stop by what nobody measures, and a random start."""
    lovt = str(ROOT / "configs/pretrain/phantom_lovt.yaml")
    comparison = {
        "title": "Tiny",
        "output": str(folder / "out"),
        "page": str(folder / "page.md"),
        "shards_profile": str(_shards_profile(folder)),
        "shards": str(folder / "shards"),
        "seeds": [3],
        "labelled_studies": 12,
        "labelled_subsets": 2,
        "methods": [
            {"name": "lovt", "title": "LoVT", "supervision": "reports", "profile": lovt},
            {
                "name": "lovt_no_local",
                "title": "Broken",
                "supervision": "reports",
                "profile": lovt,
                "overrides": ["training.best_metric=beauty"],
            },
            {
                "name": "untrained",
                "title": "Random",
                "supervision": "none",
                "profile": str(ROOT / "configs/pretrain/phantom_untrained.yaml"),
            },
        ],
    }
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump(comparison))
    return path


def _command(profile: Path, *overrides: str) -> list[str]:
    return [sys.executable, "-m", "distributed_pretrain", "compare", str(profile), *overrides]


@pytest.mark.timeout(600)  # three processes that each import everything
@pytest.mark.xdist_group("comparison")
def test_a_comparison_makes_a_page_and_goes_on_with_what_failed(
    tmp_path: Path, command: Command
) -> None:
    words = ("compare", _profile(tmp_path), *TINY, "training.max_steps=6")
    said = command.complete(command(*words), status=1)
    assert "3 runs to make (0 are there)" in said
    assert "failed: lovt_no_local seed 3: error: training.best_metric='beauty' is" in said
    assert "Traceback" not in said
    page = (tmp_path / "page.md").read_text()
    assert "| LoVT | reports |" in page
    assert "| Broken | reports | not yet run |" in page
    assert "| Random | nothing | - | - | - |" in page
    assert (tmp_path / "page.png").stat().st_size > 5_000
    results = json.loads((tmp_path / "out" / "results.json").read_text())["methods"]
    assert {name: len(runs) for name, runs in results.items()} == {
        "lovt": 1,
        "lovt_no_local": 0,
        "untrained": 1,
    }
    run = results["lovt"][0]
    assert (run["steps"], run["seed"], run["metrics"]["samples"]) == (6, 3, 12.0)
    assert {"recall_at_5", "grounding_cnr", "linear_dice", "linear_auroc"} <= set(run["metrics"])
    assert run["region_similarity"][0]["distance"] > 0

    assert "runs to make" not in command.complete(command(*words, "only=[lovt,untrained]"))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["methods"] == results


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    command = _command(
        _profile(tmp_path), *TINY, "training.max_steps=200", "training.epochs=60", "only=[lovt]"
    )
    metrics = tmp_path / "out" / "lovt" / "seed_3" / "metrics.jsonl"
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    again = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    log = (tmp_path / "out" / "lovt" / "seed_3" / "run.log").read_text()
    assert "going on from step" in log


def test_jobs_differ_by_settings_and_not_by_where_they_lie(tmp_path: Path) -> None:
    profile = _profile(tmp_path)

    def jobs(*overrides: str, training: tuple[str, ...] = ()) -> list[str]:
        config = load_profile(ComparisonConfig, profile, overrides)
        return [fingerprint(job) for job in jobs_of(config, training)]

    usual = jobs()
    assert len(set(usual)) == len(usual) == 3
    assert jobs(f"output={tmp_path / 'elsewhere'}") == usual
    for changed in (jobs("labelled_studies=13"), jobs(training=("training.max_steps=5",))):
        assert not set(changed) & set(usual)
    assert len(set(jobs("seeds=[3,4]"))) == 6
    assert jobs("only=[untrained]") == usual[2:]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/compare").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_comparisons_profile_asks_for_runs_that_can_be_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = load_profile(ComparisonConfig, path)
    jobs = jobs_of(config)
    assert len(jobs) == len(config.methods) * len(config.seeds)
    assert len({job.folder for job in jobs}) == len(jobs)
    shards = load_profile(ShardsConfig, config.shards_profile)
    assert shards.output == config.shards
    assert {bar.metric for bar in config.bars} <= JUDGED_BY.keys()
    assert {bar.than_metric for bar in config.bars} - {None} <= JUDGED_BY.keys()


@pytest.mark.xdist_group("comparison")
@pytest.mark.parametrize(
    "only", ["[lovt_regions]", pytest.param("[]", id="every row", marks=pytest.mark.slow)]
)
def test_the_comparison_for_a_gpu_runs_in_miniature(
    only: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet-50 in bf16 as there; in this process, to import everything once."""
    monkeypatch.chdir(ROOT)
    where = (
        f"output={tmp_path / 'out'}",
        f"page={tmp_path / 'page.md'}",
        f"shards_profile={_shards_profile(tmp_path)}",
        f"shards={tmp_path / 'shards'}",
        "labelled_studies=12",
        "labelled_subsets=2",
        f"only={only}",
    )
    config = load_profile(ComparisonConfig, Path("configs/compare/phantom_gpu.yaml"), where)
    build_shards(config.shards_profile, config.shards)
    jobs = jobs_of(config, (*TINY, "training.validate_every_steps=2", "training.max_steps=2"))
    for job in jobs:
        assert job.pretrain.training.precision == "bf16"
        assert job.pretrain.method.image_encoder.backbone == "resnet50"
        job.folder.mkdir(parents=True)
        (job.folder / "job.json").write_text(job.model_dump_json())
        assert run_job(job.folder / "job.json") == 0
    results = collect(config, jobs)
    write_page(config, results, command="-")
    page = (tmp_path / "page.md").read_text()
    assert sum(map(len, results.values())) == len(jobs)
    for runs in filter(None, results.values()):
        assert [run.steps for run in runs] == [2]
        assert "grounding_pointing" in runs[0].metrics
    assert ("not yet run" in page) == bool(config.only)
    for bar in config.bars:
        assert bar.says in page


def test_sources_are_asked_for_only_where_a_run_is_still_to_be_made(tmp_path: Path) -> None:
    where = (
        f"output={tmp_path / 'out'}",
        "shards_profile=configs/shards/csv_pairs.yaml",
        f"shards={tmp_path / 'shards'}",
        "seeds=[0]",
        "only=[lovt_regions]",
    )
    profile = Path("configs/compare/phantom_regions.yaml")
    config = load_profile(ComparisonConfig, profile, where)
    with pytest.raises(InputError, match="source"):
        refuse_what_cannot_start(config, config.output, 1)
    [job] = jobs_of(config)
    job.folder.mkdir(parents=True)
    job.result.touch()
    refuse_what_cannot_start(config, config.output, 1)
