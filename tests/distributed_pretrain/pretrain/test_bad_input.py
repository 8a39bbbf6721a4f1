"""Bad input of the training commands: one clear line, a non-zero exit, nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from data_shards.records.manifest import read_shard_index
from distributed_pretrain.__main__ import main
from tests.forks import fork
from tests.full_disk import full_disk

if TYPE_CHECKING:
    from tests.tiny.run import Command


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line a command ends with when it refuses its input."""
    assert main([str(each) for each in arguments]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.fixture
def own_shards(tiny_profile: Path, tmp_path: Path) -> Path:
    """A copy of the tiny shards that a test may damage."""
    shards = yaml.safe_load(tiny_profile.read_text())["data"]["shards"]
    return Path(shutil.copytree(shards, tmp_path / "shards"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.global_bach=4", "unknown key 'data.global_bach': did you mean 'global_batch'?"),
        ("trainin.max_steps=4", "did you mean 'training'?"),
        ("data.global_batch=61", "global_batch=61 is larger than the split of 60"),
        ("method.image_encoder.backbone=resnet19", "resnet19"),
        ("training={accumulation: plain, accumulation_steps: 3}", "use 6 or 9"),
        ("training.best_metric=totl", "choose one of global, image_to_report_recall_at_1"),
        ("data.max_tokens=1000", "takes at most 512 tokens"),
        ("optimizer.betas=[0.9, 1.5]", "less than 1"),
        ("data.shards=nowhere", "no manifest"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_written(
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    run = tmp_path / "run"
    assert message in refused(capsys, "pretrain", tiny_profile, f"run_folder={run}", override)
    assert not run.exists()


def test_a_text_encoder_folder_without_weights_is_refused(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    message = refused(
        capsys,
        *("pretrain", tiny_profile, f"run_folder={tmp_path / 'run'}"),
        f"method.report_encoder={{name: pretrained, model: {folder}}}",
    )
    assert str(folder) in message


def test_a_run_folder_of_another_config_is_refused_naming_the_difference(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    values = yaml.safe_load(tiny_profile.read_text()) | {"run_folder": str(run), "seed": 7}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    message = refused(capsys, "pretrain", tiny_profile, f"run_folder={run}")
    assert "seed (7 then, 12345 now)" in message


def test_shards_of_another_schema_are_refused(
    tiny_profile: Path, own_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_shards / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 99}))
    message = refused(
        capsys,
        "pretrain",
        tiny_profile,
        f"run_folder={tmp_path / 'r'}",
        f"data.shards={own_shards}",
    )
    assert "schema version 99" in message


def test_a_tar_cut_short_is_refused(
    tiny_profile: Path, own_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = own_shards / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:20_000])
    message = refused(
        capsys,
        "pretrain",
        tiny_profile,
        f"run_folder={tmp_path / 'r'}",
        f"data.shards={own_shards}",
    )
    assert "train-000000.tar" in message


def test_other_shards_than_a_run_was_trained_on_are_refused(
    tiny_profile: Path,
    own_shards: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    arguments = ("pretrain", tiny_profile, f"run_folder={tmp_path / 'run'}", "training.max_steps=9")
    command.complete(command(*arguments))
    manifest = own_shards / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"licence": "other"}))
    assert "not the shards" in refused(capsys, *arguments, f"data.shards={own_shards}")


def flip_a_bit(shards: Path, samples: int) -> None:
    """Damage the image of the first `samples` training studies where it lies in its tar."""
    index = read_shard_index(shards / "train-000000.index.json")
    tar = shards / index.tar_name
    content = bytearray(tar.read_bytes())
    for sample in list(index.samples)[:samples]:
        member = sample.members["image0.jpg"]
        content[member.offset + member.size // 2] ^= 1
    tar.write_bytes(content)


@pytest.mark.xdist_group("pretrain")
def test_a_bad_sample_is_replaced_counted_and_named(
    tiny_profile: Path, own_shards: Path, command: Command, tmp_path: Path
) -> None:
    flip_a_bit(own_shards, samples=1)
    run = tmp_path / "run"
    overrides = (f"data.shards={own_shards}", "data.max_bad_fraction=0.02", "training.max_steps=7")
    command.complete(command("pretrain", tiny_profile, f"run_folder={run}", *overrides))
    named = [json.loads(line) for line in (run / "quarantine.jsonl").open()]
    assert [line["shard"] for line in named] == ["train-000000.tar"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert sum(line.get("replaced_samples", 0) for line in lines) == 1


@pytest.mark.xdist_group("pretrain")
def test_too_many_bad_samples_stop_the_run(
    tiny_profile: Path, own_shards: Path, command: Command, tmp_path: Path
) -> None:
    flip_a_bit(own_shards, samples=5)
    run = tmp_path / "run"
    overrides = (f"data.shards={own_shards}", "data.max_bad_fraction=0.02")
    process = command("pretrain", tiny_profile, f"run_folder={run}", *overrides)
    assert "more than max_bad_fraction=0.02 allows" in command.complete(process, status=2)


@pytest.mark.xdist_group("pretrain")
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(
    tiny_profile: Path, command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = command("pretrain", tiny_profile, f"run_folder={run}", "optimizer.learning_rate=1e30")
    last = command.complete(process, status=1).splitlines()[-1]
    assert last.startswith("error: step 4: ")
    assert "3 steps in a row, and no checkpoint is older" in last
    assert "lower optimizer.learning_rate" in last
    lines = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert [(line["step"], len(line["keys"])) for line in lines] == [(2, 8), (3, 8), (4, 8)]


def pretrain_on_a_full_disk(arguments: list[str]) -> None:
    with full_disk(left_bytes=400_000):
        sys.exit(main(arguments))


@pytest.mark.xdist_group("pretrain")
def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(
    tiny_profile: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["pretrain", str(tiny_profile), f"run_folder={run}"]
    process = fork(pretrain_on_a_full_disk, arguments, files=tmp_path / "said")
    assert process.wait() == 2
    last = process.said.splitlines()[-1]
    assert last.startswith("error: ")
    assert "step_00000004: not written (File too large): free some space" in last
    assert list((run / "checkpoints").iterdir()) == []
