"""What holds of an image encoder whatever its trunk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from data_shards.errors import InputError
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import (
    ImageEncoder,
    check_upsampling,
    make_image_encoder,
)
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.maps import GroupedBatchNorm2d, SyncBatchNorm2d
from distributed_pretrain.models.trunks.vision_transformer import VisionTransformerTrunk

ENCODERS: dict[str, Callable[[], ImageEncoder]] = {
    "resnet18": lambda: make_image_encoder("resnet18", width=0.125),
    "vit_b_32": lambda: ImageEncoder(VisionTransformerTrunk("vit_b_32", layers=2)),
    "timm/test_resnet": lambda: make_image_encoder("timm/test_resnet"),
    "timm/test_vit": lambda: make_image_encoder("timm/test_vit"),
}
TRANSFORMERS = ("vit_b_32", "timm/test_vit")
every_trunk = pytest.mark.parametrize("name", ENCODERS)


def encoder(name: str) -> ImageEncoder:
    torch.manual_seed(0)
    return ENCODERS[name]()


def images(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 1, 64, 96, generator=torch.Generator().manual_seed(1))


@every_trunk
def test_a_map_and_tokens_have_the_channels_they_say(name: str) -> None:
    model = encoder(name).eval()
    last_map, tokens = model(images()), model.tokens(images())
    rows, columns = last_map.shape[2:]
    assert last_map.shape == (3, model.channels, rows, columns)
    assert (rows, columns) in ((2, 3), (4, 6))
    assert tokens.image.shape == (3, model.channels)
    assert tokens.regions.shape[3] == model.region_channels
    if name in TRANSFORMERS:
        torch.testing.assert_close(tokens.regions, last_map.movedim(1, 3))
        assert model.backbone.patch_size == 64 // rows
        assert tokens.class_attention is not None
        assert tokens.class_attention.shape == (3, rows * columns)
        assert (tokens.class_attention > 0).all()
        assert (tokens.class_attention.sum(dim=1) < 1).all()
        assert not tokens.class_attention.requires_grad
    else:
        torch.testing.assert_close(tokens.image, last_map.mean(dim=(2, 3)))
        assert tokens.regions.shape[1:3] == (2 * rows, 2 * columns)
        assert tokens.class_attention is None
        assert model.backbone.patch_size is None


@every_trunk
def test_regions_lie_where_they_lie_in_the_image(name: str) -> None:
    model = encoder(name).eval()
    changed = images(1)
    changed[..., 32:, :32] += 3  # the lower left of three columns
    with torch.no_grad():
        before, after = (model.tokens(each).regions for each in (images(1), changed))
    change = (after - before).square().sum(dim=3)[0]
    quarters = nn.functional.adaptive_avg_pool2d(change[None, None], (2, 3))[0, 0]
    assert quarters.argmax() == 3


@every_trunk
@pytest.mark.parametrize("what", ["map", "tokens"])
def test_every_parameter_of_the_trunk_is_trained(name: str, what: str) -> None:
    model = encoder(name)
    if what == "map":
        total = model(images()).square().mean()
    else:
        tokens = model.tokens(images())
        total = tokens.image.square().mean() + tokens.regions.square().mean()
    total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@every_trunk
def test_masked_images_reach_no_statistic_and_become_zeros(name: str) -> None:
    mask = torch.tensor([True, False, True])
    with_nan = images()
    with_nan[1] = torch.nan
    plain, masked = encoder(name), encoder(name)
    expected, found = plain.tokens(images()[mask]), masked.tokens(with_nan, mask)
    for ours, wanted in zip(found, expected, strict=True):
        if ours is None:
            assert wanted is None
        else:
            assert wanted is not None
            torch.testing.assert_close(ours[mask], wanted)
            assert not ours[~mask].any()
    torch.testing.assert_close(masked(with_nan, mask)[mask], plain(images()[mask]))
    for buffer, reference in zip(masked.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, reference)


@every_trunk
def test_images_that_are_all_absent_give_zeros_and_gradients_of_zeros(name: str) -> None:
    model = encoder(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tokens = model.present_tokens(images(), torch.zeros(3, dtype=torch.bool))
    assert not tokens.image.any()
    (tokens.image.sum() + tokens.regions.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@every_trunk
def test_heads_fit_the_image_and_its_regions(name: str) -> None:
    model = encoder(name)
    image, regions = TwoLevelHeads(model, 8)(model.tokens(images()))
    assert image.shape == (3, 8)
    assert regions.shape[-1] == 8


@pytest.mark.parametrize("prefix", ["", "image_encoder."], ids=["encoder", "run"])
@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/test_vit"])
def test_an_encoders_or_a_runs_state_dict_loads_as_weights(
    name: str, prefix: str, tmp_path: Path
) -> None:
    saved, path = encoder(name), tmp_path / "encoder.pt"
    of_others = {"teacher.backbone.conv1.weight": torch.zeros(1)} if prefix else {}
    torch.save({prefix + key: value for key, value in saved.state_dict().items()} | of_others, path)
    loaded = make_image_encoder(name, weights=str(path))
    for key, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


LAYERS: dict[Norm, type[nn.Module]] = {
    "sync": SyncBatchNorm2d,
    "local": GroupedBatchNorm2d,
    "frozen": FrozenBatchNorm2d,
    "group": nn.GroupNorm,
}


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("name", ["resnet18", "timm/test_resnet"])
def test_a_resnet_takes_every_norm(name: str, norm: Norm) -> None:
    model = make_image_encoder(name, norm=norm)
    norms = [each for key, each in model.named_modules() if key.rpartition(".")[2].startswith("bn")]
    assert len(norms) > 6
    assert {type(each) for each in norms} == {LAYERS[norm]}


@pytest.mark.parametrize("norm", ["local", "frozen"])
@pytest.mark.parametrize("name", ["vit_b_32", "timm/test_vit"])
def test_norms_a_transformer_has_not_are_refused(name: str, norm: Norm) -> None:
    with pytest.raises(InputError, match=f"no batch norm for norm={norm}"):
        make_image_encoder(name, norm=norm)


def test_a_trunk_without_regions_is_refused() -> None:
    with pytest.raises(InputError, match="third stage of a ResNet or the patches"):
        TwoLevelHeads(make_image_encoder("mobilenet_v3_small"), 8)


@every_trunk
def test_upsampling_must_give_whole_patches(name: str) -> None:
    model = encoder(name)
    check_upsampling(model, None)
    check_upsampling(model, 320)
    if name in TRANSFORMERS:
        with pytest.raises(InputError, match=r"upsample_px=299: .* use (288|304), or null"):
            check_upsampling(model, 299)
    else:
        check_upsampling(model, 299)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_images_that_are_not_whole_patches_are_refused_with_a_size_that_is(name: str) -> None:
    model = encoder(name)
    for encode in (model, model.tokens):
        with pytest.raises(InputError, match=r"100 x 100 px .* data\.image_size_px=96"):
            encode(torch.zeros(1, 1, 100, 100))
