"""Another project's image encoder is judged by the commands that judge a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distributed_pretrain.__main__ import main
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.pretrain.build import load_method
from distributed_pretrain.run_folder.folder import RunFolder
from tests.paths import CONFIGS


def test_an_encoder_of_gloria_is_evaluated_as_a_run_that_trains_nothing(
    phantom_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    theirs = make_image_encoder("resnet18", width=0.125).backbone.state_dict()
    state = {f"gloria.img_encoder.model.{name}": each for name, each in theirs.items()}
    torch.save({"state_dict": state}, tmp_path / "gloria.pt")
    run = tmp_path / "run"
    changes = (
        f"data.shards={phantom_shards}",
        f"run_folder={run}",
        f"method.image_encoder.weights={tmp_path / 'gloria.pt'}",
        *("method.image_encoder.backbone=resnet18", "method.image_encoder.width=0.125"),
        *("data.image_size_px=64", "data.normalisation=half", "data.global_batch=4"),
    )
    profile = str(CONFIGS / "pretrain" / "imagenet_untrained.yaml")
    assert main(["pretrain", profile, *changes]) == 0
    assert f"of GLoRIA: {len(theirs)} tensors into resnet18; none left" in capsys.readouterr().err
    judged = load_method(run, "best").method.image_encoder.backbone.state_dict()
    assert all(torch.equal(judged[name], each) for name, each in theirs.items())
    assert main(["evaluate", str(run), "labelled_studies=8"]) == 0
    path = RunFolder(run).evaluation("test", "best")
    assert json.loads(path.read_text())
