"""Patients of the test split that the encoder was trained on are told, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.downstream.overlap import check_overlap
from distributed_pretrain.downstream.settings import DownstreamConfig
from tests.paths import CONFIGS


def pretrained_on(shards: Path, run: Path, folder: Path) -> Path:
    """A copy of the run that says it learnt from other shards."""
    shutil.copytree(run, folder, symlinks=True)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["data"]["shards"] = str(shards)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def judged_on(shards: Path, run: Path, *more: str) -> DownstreamConfig:
    profile = CONFIGS / "downstream" / "phantom_linear.yaml"
    return load_profile(
        DownstreamConfig, profile, [f"encoder={run}", f"data.shards={shards}", *more]
    )


def test_no_patient_of_another_split_or_source_is_told(
    drawn_shards: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrained_on(drawn_shards, tiny_run, tmp_path / "run")
    assert check_overlap(judged_on(drawn_shards, run, "strict_overlap=true")) == 0
    assert check_overlap(judged_on(drawn_shards, tiny_run)) == 0
    assert capsys.readouterr().err == ""
    assert check_overlap(judged_on(drawn_shards, tiny_run, "strict_overlap=true")) == 0
    assert "cannot be compared: `python -m data_shards overlap` finds" in capsys.readouterr().err


def test_shared_patients_are_counted_or_refused(
    drawn_shards: Path,
    phantom_shards: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = pretrained_on(phantom_shards, tiny_run, tmp_path / "run")
    learnt = ShardSplit(phantom_shards, "train", "lovt").patients
    judged = ShardSplit(drawn_shards, "test", "lovt").patients
    theirs = {*sorted(judged)[:2], *learnt}
    # What a split found out is put aside.
    whose = property(lambda self: judged if self.split == "test" else theirs, lambda *_: None)
    monkeypatch.setattr(ShardSplit, "patients", whose, raising=False)
    assert check_overlap(judged_on(drawn_shards, run)) == 2
    assert f"warning: 2 of {len(judged)} patients of the test split" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"2 of \d+ patients .*: judge it on others"):
        check_overlap(judged_on(drawn_shards, run, "strict_overlap=true"))
    untrained = ("strict_overlap=true", "encoder.checkpoint=untrained")
    assert check_overlap(judged_on(drawn_shards, run, *untrained)) == 0


def test_shards_that_are_gone_tell_nothing(
    drawn_shards: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = pretrained_on(tmp_path / "gone", tiny_run, tmp_path / "run")
    assert check_overlap(judged_on(drawn_shards, run)) == 0
    assert "is not known" in capsys.readouterr().err
