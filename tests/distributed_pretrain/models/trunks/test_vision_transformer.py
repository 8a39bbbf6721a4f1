"""The vision transformer trunk against torchvision's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models.vision_transformer import VisionTransformer

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.models.trunks.vision_transformer import VisionTransformerTrunk


def trunk(layers: int = 2) -> VisionTransformerTrunk:
    torch.manual_seed(0)
    small = VisionTransformerTrunk("vit_b_32", layers=layers)
    small.eval()
    return small


@torch.no_grad()
def test_the_trunk_is_torchvisions_up_to_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    reference = VisionTransformer(224, 32, 2, 12, 768, 3072).eval()
    torch.nn.init.normal_(reference.heads.head.weight)
    torch.save(reference.state_dict(), tmp_path / "weights.pt")
    ours = trunk()
    ours.load_weights("vit_b_32", str(tmp_path / "weights.pt"))
    assert set(reference.state_dict()) - set(ours.state_dict()) == {
        "heads.head.weight",
        "heads.head.bias",
    }
    images = torch.randn(2, 3, 224, 224)
    tokens = ours.tokens(images)
    torch.testing.assert_close(reference.heads(tokens.image), reference(images))
    assert tokens.regions.shape == (2, 7, 7, 768)
    torch.testing.assert_close(ours(images).movedim(1, 3), tokens.regions)


@torch.no_grad()
def test_patches_lie_on_the_map_where_they_lie_in_the_image() -> None:
    ours = trunk(layers=0)
    image = torch.zeros(1, 3, 224, 224)
    changed = image.clone()
    changed[:, :, 32:64, 160:192] = 1
    difference = (ours(changed) - ours(image)).abs().sum(dim=1)[0]
    assert difference.nonzero().tolist() == [[1, 5]]


@torch.no_grad()
def test_the_class_attention_is_that_of_the_last_layer() -> None:
    ours = trunk()
    images = torch.randn(2, 3, 64, 96)
    seen: list[torch.Tensor] = []
    last = ours.encoder.layers[-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = ours.tokens(images)
    normed = last.ln_1(seen[0])
    _, weights = last.self_attention(normed, normed, normed, need_weights=True)
    assert tokens.class_attention is not None
    assert tokens.class_attention.shape == (2, 6)
    torch.testing.assert_close(tokens.class_attention, weights[:, 0, 1:])


@torch.no_grad()
def test_other_sizes_than_224_resize_the_positions_like_an_image() -> None:
    ours = trunk(layers=0)
    # Positions that grow with the row grow half as fast with twice the rows. Bicubic weights do
    # not keep straight lines quite straight.
    rows = torch.arange(7.0).repeat_interleave(7)
    ours.encoder.pos_embedding[0, 1:] = rows[:, None]
    positions = ours._positions((14, 7))[0, 1:].view(14, 7, -1)
    expected = (torch.arange(14) + 0.5) / 2 - 0.5
    torch.testing.assert_close(
        positions[4:10], expected[4:10, None, None].expand(6, 7, 768), atol=0.06, rtol=0
    )
    assert ours(torch.zeros(1, 3, 448, 224)).shape == (1, 768, 14, 7)


def test_an_image_encoder_gives_196_regions_of_768_dimensions() -> None:
    with torch.device("meta"):
        encoder = make_image_encoder("vit_b_16", norm="group")
        assert encoder.channels == 768
        assert encoder(torch.zeros(2, 1, 224, 224)).shape == (2, 768, 14, 14)


def test_images_that_are_not_whole_patches_are_refused_with_a_size_that_is() -> None:
    with pytest.raises(InputError, match=r"100 x 100 px .* data\.image_size_px=96"):
        trunk(layers=0)(torch.zeros(1, 3, 100, 100))


def test_norms_a_transformer_has_not_are_refused() -> None:
    with torch.device("meta"), pytest.raises(InputError, match="no batch norm for norm=frozen"):
        make_image_encoder("vit_b_16", norm="frozen")
