"""Where an encoder comes from, in one word or in full, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from data_shards.errors import InputError
from data_shards.profiles import load_profile, parse_overrides, validate
from distributed_pretrain.downstream.encoders import load_encoder
from distributed_pretrain.downstream.results import encoder_identity
from distributed_pretrain.downstream.settings import DownstreamConfig, EncoderConfig
from distributed_pretrain.pretrain.build import load_method
from tests.paths import CONFIGS


def configured(**values: Any) -> EncoderConfig:
    return validate(EncoderConfig, values, where="test")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("runs/lovt", {"run_folder": Path("runs/lovt")}),
        ("random", {"image_encoder": {"weights": None}}),
        ("imagenet", {"image_encoder": {"weights": "IMAGENET1K_V1"}}),
        ("other/resnet50.pth", {"image_encoder": {"weights": "other/resnet50.pth"}}),
    ],
)
def test_one_word_says_where_it_comes_from(word: str, expected: dict[str, Any]) -> None:
    profile = CONFIGS / "downstream" / "tasks" / "nih_linear.yaml"
    config = load_profile(DownstreamConfig, profile, [f"encoder={word}"])
    assert config.encoder == configured(**expected)
    # Over a profile that says another, the whole of it.
    profile = CONFIGS / "downstream" / "phantom_linear.yaml"
    assert load_profile(DownstreamConfig, profile, [f"encoder={word}"]).encoder == config.encoder


def test_it_is_either_a_run_or_a_model() -> None:
    for values in ({}, {"run_folder": "x", "image_encoder": {}}):
        with pytest.raises(InputError, match="give one of run_folder and image_encoder"):
            configured(**values)
    assert parse_overrides(["encoder=a"]) == {"encoder": "a"}


def small(weights: Path | None = None) -> EncoderConfig:
    backbone = {"backbone": "resnet18", "weights": None if weights is None else str(weights)}
    return configured(image_encoder=backbone)


def test_what_was_loaded_and_what_was_not_is_said(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = torchvision.models.resnet18(weights=None)
    path = tmp_path / "plain.pt"
    torch.save(plain.state_dict(), path)
    encoder = load_encoder(small(path)).image_encoder
    assert encoder.backbone.state_dict()["conv1.weight"].equal(plain.conv1.weight)
    assert (
        "120 tensors into resnet18; 2 left: fc.weight (1), fc.bias (1)" in capsys.readouterr().err
    )
    load_encoder(small())
    assert "resnet18 with a random start: 0 tensors loaded" in capsys.readouterr().err
    method = load_encoder(configured(run_folder=tiny_run))
    said = capsys.readouterr().err
    assert "(lovt, best): 120 tensors loaded; not used: report_encoder (37)" in said
    trained = load_method(tiny_run, "best").method.image_encoder.state_dict()
    found = method.image_encoder.state_dict()
    assert all(found[name].equal(value) for name, value in trained.items())


def test_weights_of_another_architecture_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    config = configured(image_encoder={"backbone": "resnet50", "weights": str(path)})
    with pytest.raises(InputError, match=r"plain.pt: .* not weights of resnet50|has shape"):
        load_encoder(config)


def test_a_random_start_is_the_same_for_every_run_of_a_task() -> None:
    torch.manual_seed(1)
    first = load_encoder(small()).image_encoder.state_dict()
    torch.manual_seed(2)
    second = load_encoder(small()).image_encoder.state_dict()
    other = load_encoder(small().model_copy(update={"seed": 1})).image_encoder.state_dict()
    assert all(second[name].equal(value) for name, value in first.items())
    assert not other["backbone.conv1.weight"].equal(first["backbone.conv1.weight"])


def test_other_weights_have_another_identity(tiny_run: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for number, path in enumerate(paths):
        torch.save({"weight": torch.tensor(number)}, path)
    configs = [
        *(small(path) for path in paths),
        small(),
        small().model_copy(update={"seed": 1}),
        configured(run_folder=tiny_run),
        configured(run_folder=tiny_run, checkpoint="untrained"),
    ]
    identities = [encoder_identity(config) for config in configs]
    assert len(set(identities)) == len(configs)
    moved = tmp_path / "moved"
    moved.symlink_to(tiny_run)
    assert encoder_identity(configured(run_folder=moved)) == identities[4]
