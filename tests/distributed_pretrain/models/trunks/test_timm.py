"""timm's trunks against timm's own models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import make_image_encoder


def reference_and_weights(name: str, tmp_path: Path) -> tuple[Any, Path]:
    """A model with its classifier, and its state dict in a file."""
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=5).eval()
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    return model, path


@torch.no_grad()
def test_a_resnet_is_timms_up_to_its_last_map(tmp_path: Path) -> None:
    reference, weights = reference_and_weights("test_resnet", tmp_path)
    encoder = make_image_encoder("timm/test_resnet", weights=str(weights)).eval()
    image = torch.randn(2, 1, 96, 64)
    expected = reference.forward_features(image.expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(image), expected)
    maps = reference.forward_intermediates(image.expand(-1, 3, -1, -1), intermediates_only=True)
    torch.testing.assert_close(encoder.tokens(image).regions, maps[-2].movedim(1, 3))


@torch.no_grad()
def test_a_vision_transformer_is_timms_up_to_its_classifier(tmp_path: Path) -> None:
    reference, weights = reference_and_weights("test_vit", tmp_path)
    encoder = make_image_encoder("timm/test_vit", weights=str(weights)).eval()
    image = torch.randn(2, 1, 160, 160)
    tokens = encoder.tokens(image)
    torch.testing.assert_close(
        reference.forward_head(tokens.image[:, None]), reference(image.expand(-1, 3, -1, -1))
    )
    expected = reference.forward_features(image.expand(-1, 3, -1, -1))[:, 1:]
    torch.testing.assert_close(tokens.regions.flatten(1, 2), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_the_class_attention_is_that_of_the_last_layer(name: str) -> None:
    torch.manual_seed(0)
    encoder = make_image_encoder(f"timm/{name}").eval()
    model: Any = encoder.backbone.get_submodule("model")
    attention = model.blocks[-1].attn
    attention.fused_attn = False
    seen: list[torch.Tensor] = []
    attention.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = encoder.tokens(torch.randn(2, 1, 64, 48))
    torch.testing.assert_close(tokens.class_attention, seen[0][:, :, 0, 1:].mean(dim=1))


@torch.no_grad()
def test_without_a_class_token_an_image_is_the_mean_of_its_patches_and_not_of_registers() -> None:
    encoder = make_image_encoder("timm/test_vit3")
    model: Any = encoder.backbone.get_submodule("model")
    assert (model.has_class_token, model.num_prefix_tokens) == (False, 1)
    tokens = encoder.tokens(torch.randn(2, 1, 64, 48))
    assert tokens.class_attention is None
    assert tokens.regions.shape[1:3] == (4, 3)
    torch.testing.assert_close(tokens.image, tokens.regions.mean(dim=(1, 2)))


def test_weights_of_a_tag_are_those_that_timm_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[Any] = []
    create = timm.create_model

    def with_pretrained(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        model = create(name, **options)
        if pretrained:
            created.append((name, model))
        return model

    monkeypatch.setattr(timm, "create_model", with_pretrained)
    encoder = make_image_encoder("timm/test_resnet", weights="r160_in1k", norm="group")
    ((name, pretrained),) = created
    assert name == "test_resnet.r160_in1k"
    for key, value in encoder.backbone.get_submodule("model").state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[key])


def test_weights_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"hf download timm/test_vit\.r160_in1k --local-dir"):
        make_image_encoder("timm/test_vit", weights="r160_in1k")
    with pytest.raises(InputError, match=r"weights of timm/test_vit: give .* one of r160_in1k"):
        make_image_encoder("timm/test_vit", weights="IMAGENET1K_V1")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    _, weights = reference_and_weights("test_vit", tmp_path)
    with pytest.raises(InputError, match="no tensor 'conv1"):
        make_image_encoder("timm/test_resnet", weights=str(weights))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("timm/resnet10tt", "timm has no such model: did you mean resnet10t"),
        ("timm/test_vit.no_tag", r"no such model: did you mean test_vit\.r160_in1k"),
        ("timm/no-such", r"see timm\.list_models"),
        ("timm/resnetv2_50", "joins batch norms with activations"),
        ("timm/test_efficientnet", "neither convolutional nor a plain vision transformer"),
        ("timm/deit_tiny_distilled_patch16_224", "does not take its classifier off"),
    ],
)
def test_models_that_cannot_be_a_trunk_are_refused(backbone: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_image_encoder(backbone)


def test_width_and_stride_are_options_of_torchvisions_resnets() -> None:
    with pytest.raises(InputError, match="options of the ResNets"):
        make_image_encoder("timm/test_resnet", last_stride=1)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm is not installed: `pip install timm`"):
        make_image_encoder("timm/test_vit")
