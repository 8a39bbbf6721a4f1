from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import make_image_encoder, receptive_field_px
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.maps import GroupedBatchNorm2d, SyncBatchNorm2d


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_resnet_is_torchvisions_up_to_its_last_map(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, weights=None).eval()
    weights = tmp_path / "weights.pt"
    torch.save(reference.state_dict(), weights)
    encoder = make_image_encoder(name, weights=str(weights)).eval()
    assert set(reference.state_dict()) - set(encoder.backbone.state_dict()) == {
        "fc.weight",
        "fc.bias",
    }
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        last_map = encoder(image)
        expected = reference(image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(reference.fc(last_map.mean(dim=(2, 3))), expected)
    assert last_map.shape == (2, reference.fc.in_features, 2, 2)
    assert encoder.channels == reference.fc.in_features


def test_the_paper_sees_49_regions_of_2048_dimensions() -> None:
    with torch.device("meta"):
        encoder = make_image_encoder("resnet50")
        assert encoder(torch.zeros(1, 1, 224, 224)).shape == (1, 2048, 7, 7)


def test_without_its_last_stride_a_resnet_has_twice_the_rows_and_columns() -> None:
    with torch.device("meta"):
        encoder = make_image_encoder("resnet18", last_stride=1)
        assert encoder(torch.zeros(1, 1, 128, 128)).shape == (1, 512, 8, 8)


def test_without_its_fourth_stage_a_resnet_has_the_map_of_the_third() -> None:
    torch.manual_seed(0)
    whole = make_image_encoder("resnet18", width=0.25).eval()
    third = make_image_encoder("resnet18", width=0.25, last_stage=3).eval()
    own = third.backbone.state_dict()
    third.backbone.load_state_dict({name: whole.backbone.state_dict()[name] for name in own})
    assert not any(name.startswith("layer4") for name in own)
    image = torch.randn(2, 1, 96, 96)
    expected = whole.tokens(image).regions.permute(0, 3, 1, 2)
    torch.testing.assert_close(third(image), expected)
    tokens = third.tokens(image)
    torch.testing.assert_close(tokens.image, expected.mean(dim=(2, 3)))
    assert third.channels == third.region_channels == 64


@pytest.mark.parametrize(
    ("options", "side_px"),
    [
        # 8, then (3 - 1) 4, twice (3 - 1) 8: as the kernels and strides say.
        ({"backbone": "patches"}, 8 + 8 + 16),
        # 7, + 2 x 2 of the pool, + 4 x 2 x 4, and of each further stage a first stride and 3 more.
        ({"backbone": "resnet18", "width": 0.25, "last_stage": 3}, 211),
        ({"backbone": "vit_b_32"}, 288),
    ],
    ids=["patches", "third stage", "transformer"],
)
def test_the_receptive_field_of_a_cell_is_counted_in_pixels(
    options: dict[str, Any], side_px: int
) -> None:
    torch.manual_seed(0)
    encoder = make_image_encoder(**options).eval()
    assert receptive_field_px(encoder, 288) == side_px


def test_cells_of_patches_do_not_know_where_they_lie() -> None:
    """A shifted image has the same cells, shifted: on the border too, of what mirrors itself."""
    encoder = make_image_encoder("patches").eval()
    wave = torch.arange(256.0).mul(torch.pi / 8).cos()
    image = (wave + wave[:, None])[None, None]
    cells = encoder(image)
    torch.testing.assert_close(cells[..., 2:-4, :], cells[..., 4:-2, :], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 256), ("resnet50", 1024)])
def test_half_the_width_has_a_quarter_of_the_parameters(name: str, channels: int) -> None:
    with torch.device("meta"):
        narrow, full = make_image_encoder(name, width=0.5), make_image_encoder(name)
    assert narrow.channels == channels
    sizes = [sum(p.numel() for p in each.parameters()) for each in (narrow, full)]
    assert sizes[0] / sizes[1] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_group_and_frozen_norm_do_not_mix_samples(norm: Norm) -> None:
    torch.manual_seed(0)
    encoder = make_image_encoder("resnet18", width=0.25, norm=norm)
    images = torch.randn(3, 1, 64, 64)
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_in_one_process_a_synchronised_norm_is_torchs_batch_norm(training: bool) -> None:
    torch.manual_seed(0)
    ours, reference = SyncBatchNorm2d(3, eps=1e-3, momentum=0.2), nn.BatchNorm2d(3, 1e-3, 0.2)
    assert set(ours.state_dict()) == set(reference.state_dict())
    gradients = []
    for each in (ours, reference):
        torch.manual_seed(1)
        each(torch.randn(4, 3, 5, 5) * 2 + 7)
        maps = torch.randn(4, 3, 5, 5, requires_grad=True)
        each.train(training)(maps).pow(3).sum().backward()
        gradients.append([maps.grad, each.weight.grad, each.bias.grad])
    for mine, expected in zip(*gradients, strict=True):
        assert mine is not None
        assert expected is not None
        assert torch.equal(mine, expected)
    for name, buffer in reference.named_buffers():
        assert torch.equal(ours.get_buffer(name), buffer)


_LAYERS: dict[Norm, type[nn.Module]] = {
    "sync": SyncBatchNorm2d,
    "local": GroupedBatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "group": nn.GroupNorm,
}


@pytest.mark.parametrize("norm", get_args(Norm))
def test_other_families_exchange_their_batch_norms(norm: Norm, tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.mobilenet_v3_small(weights=None).eval()
    for name, buffer in reference.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer)
    torch.save(reference.state_dict(), tmp_path / "weights.pt")
    encoder = make_image_encoder(
        "mobilenet_v3_small", norm=norm, weights=str(tmp_path / "weights.pt")
    )
    layers = [each for name, each in encoder.named_modules() if name.endswith(".0.1")]
    assert len(layers) > 10
    assert {type(each) for each in layers} == {_LAYERS[norm]}
    # Not the default of torch's layers, but what this family is built with.
    assert {each.eps for each in layers} == {1e-3}
    if norm == "group":
        return
    image = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = reference.features(image.expand(-1, 3, -1, -1))
        # Frozen statistics need no eval mode.
        ours = encoder(image) if norm == "frozen" else encoder.eval()(image)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("convnext_tiny", 768),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("mobilenet_v3_small", 576),
        ("regnet_y_400mf", 440),
        ("swin_t", 768),
    ],
)
def test_other_families_give_their_last_map(name: str, channels: int) -> None:
    encoder = make_image_encoder(name).eval()
    assert encoder.channels == channels
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1, 64, 64)).shape == (1, channels, 2, 2)


def test_weights_of_another_family_load_from_a_safetensors_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.mobilenet_v3_small(weights=None)
    weights = tmp_path / "weights.safetensors"
    save_file(reference.state_dict(), weights)
    encoder = make_image_encoder("mobilenet_v3_small", weights=str(weights)).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = reference.eval().features(image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(encoder(image), expected)


def test_an_encoders_own_state_dict_loads_as_weights(tmp_path: Path) -> None:
    saved = make_image_encoder("resnet18", width=0.25)
    torch.save(saved.state_dict(), tmp_path / "encoder.pt")
    loaded = make_image_encoder("resnet18", width=0.25, weights=str(tmp_path / "encoder.pt"))
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_masked_images_reach_no_batch_statistic_and_no_gradient() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 1, 64, 64)
    mask = torch.tensor([True, False, True, True])
    images[1] = math.nan
    plain, masked = (make_image_encoder("resnet18", width=0.25) for _ in range(2))
    masked.load_state_dict(plain.state_dict())
    expected, ours = plain(images[mask]), masked(images, mask)
    expected.square().sum().backward()
    ours.square().sum().backward()
    assert torch.equal(ours[mask], expected)
    assert not ours[1].any()
    for mine, reference in zip(masked.buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, reference)
    for parameter, other in zip(masked.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet19"}, "not a torchvision model with a feature map"),
        ({"backbone": "alexnet"}, "not a torchvision model with a feature map"),
        ({"backbone": "densenet121", "width": 0.5}, "options of the ResNets"),
        ({"backbone": "swin_t", "norm": "frozen"}, "no batch norm for norm=frozen to change"),
        ({"backbone": "vit_b_16", "width": 0.5}, "options of the ResNets"),
        ({"backbone": "resnet18", "weights": "IMAGENET2K"}, "one of IMAGENET1K_V1"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_image_encoder(**options)


def test_weights_of_another_model_are_refused_by_the_tensor_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(make_image_encoder("resnet18", width=0.25).state_dict(), path)
    with pytest.raises(InputError, match=r"conv1\.weight has shape \(16, 3, 7, 7\)"):
        make_image_encoder("resnet18", weights=str(path))
    with pytest.raises(InputError, match=r"no tensor 'layer1\.2\.conv1\.weight'"):
        make_image_encoder("resnet34", width=0.25, weights=str(path))


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_weights_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a readable weights file"):
        make_image_encoder("resnet18", weights=str(path))
