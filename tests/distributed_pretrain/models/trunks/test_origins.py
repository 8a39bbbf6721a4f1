"""State dicts of other projects as weights: our own tensors by their names, and told of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import ImageEncoder, make_image_encoder
from distributed_pretrain.models.trunks.origins import ORIGINS, from_whoever

NUMBERS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def numbered(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{NUMBERS[layer]}.{rest}"


# How each project calls a tensor of its image encoder, and others that it saves beside it.
NAMES: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "LoVT": (
        lambda name: f"model_a.encoder.feature_extractor.backbone_layers.{name}",
        ("model_b.encoder.transformer.pooler.weight", "model_a.projector_l.layers.0.weight"),
    ),
    "GLoRIA": (
        lambda name: f"gloria.img_encoder.model.{name}",
        ("gloria.text_encoder.model.pooler.weight", "gloria.img_encoder.global_embedder.weight"),
    ),
    "MGCA": (
        lambda name: f"img_encoder_q.model.{name}",
        ("text_encoder_q.model.conv1.weight", "prototype_layer.weight"),
    ),
    "ConVIRT": (
        lambda name: f"res_features.{numbered(name)}",
        ("bert_model.encoder.layer.0.weight", "res_l1.weight", "res_l1.bias"),
    ),
    "the model itself": (
        lambda name: f"method.image_encoder.backbone.{name}",
        ("method.report_encoder.encoder.weight",),
    ),
}


def encoder(weights: Path | None = None) -> ImageEncoder:
    given = None if weights is None else str(weights)
    return make_image_encoder("resnet18", width=0.125, weights=given)


def tensors() -> dict[str, Tensor]:
    """Of a trunk, at random: none is as another encoder has it by chance."""
    state: dict[str, Tensor] = encoder().backbone.state_dict()
    return {name: torch.rand_like(each) if each.ndim else each for name, each in state.items()}


@pytest.mark.parametrize("project", NAMES)
@pytest.mark.parametrize("wrapped", ["", "module."], ids=["plain", "ddp"])
def test_a_state_dict_of_another_project_is_loaded_and_told_of(
    project: str, wrapped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rename, others = NAMES[project]
    own = tensors()
    state = {wrapped + rename(name): each for name, each in own.items()}
    state |= {wrapped + name: torch.zeros(1) for name in others}
    path = tmp_path / "weights.pt"
    # As trainers save it, beside what they go on by.
    torch.save({"epoch": 3, "state_dict": state}, path)
    loaded = encoder(path).backbone.state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in own.items())
    said = capsys.readouterr().err
    assert f"of {project}: {len(own)} tensors into resnet18; {len(others)} left: " in said
    for name in others:
        assert ".".join((wrapped + name).split(".")[:2]) in said


def test_every_origin_is_tried_here() -> None:
    assert {origin.project for origin in ORIGINS} == NAMES.keys()


def test_a_vision_transformer_of_mgca_has_timms_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = make_image_encoder("timm/test_vit")
    state = saved.state_dict()
    start = "backbone.model."
    assert all(name.startswith(start) for name in state)
    torch.save(
        {f"img_encoder_q.model.{name[len(start) :]}": each for name, each in state.items()},
        tmp_path / "vit.pt",
    )
    loaded = make_image_encoder("timm/test_vit", weights=str(tmp_path / "vit.pt")).state_dict()
    assert all(torch.equal(loaded[name], each) for name, each in state.items())


def test_layers_that_a_trunk_numbers_itself_are_not_taken_for_anothers() -> None:
    """ConvNeXt's and DenseNet's names begin as ConVIRT's do."""
    own = ["features.0.0.weight", "features.4.1.block.0.weight"]
    origin, renamed, left = from_whoever(dict.fromkeys(own, 1), own)
    assert origin.project == "the model itself"
    assert list(renamed) == own
    assert left == []


def test_a_tensor_that_is_missing_is_told_by_its_own_name(tmp_path: Path) -> None:
    rename, _ = NAMES["GLoRIA"]
    state = {rename(name): each for name, each in tensors().items()}
    del state[rename("layer4.1.bn2.bias")]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"no tensor 'layer4\.1\.bn2\.bias': not weights of res"):
        encoder(tmp_path / "weights.pt")


def test_a_checkpoint_with_objects_in_it_is_refused_with_a_way_out(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {"at": tmp_path}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"give tensors alone; .* where you trust it, save torch"):
        encoder(tmp_path / "last.ckpt")
