from __future__ import annotations

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.models.global_head import GlobalImageHead
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.masked_batch_norm import MaskedBatchNorm
from distributed_pretrain.models.pooling import AttentionPooling

CHANNELS, DIM = 8, 6


def head(*, pooling_heads: int | None, norm: Norm | None = None) -> GlobalImageHead:
    torch.manual_seed(0)
    return GlobalImageHead(
        CHANNELS, hidden_dim=16, output_dim=DIM, norm=norm, pooling_heads=pooling_heads
    ).double()


@pytest.mark.parametrize("pooling_heads", [None, 2])
@pytest.mark.parametrize("norm", [None, "sync"])
def test_an_image_whose_regions_are_all_alike_is_embedded_as_each_of_them(
    pooling_heads: int | None, norm: Norm | None
) -> None:
    model = head(pooling_heads=pooling_heads, norm=norm).eval()
    cell = torch.randn(3, CHANNELS, 1, 1, dtype=torch.float64)
    image, _ = model(cell.expand(-1, -1, 4, 5))
    regions = model.embed_regions(cell.expand(-1, -1, 4, 5))
    assert regions.shape == (3, 4, 5, DIM)
    torch.testing.assert_close(regions, image[:, None, None].expand(-1, 4, 5, -1))


def test_each_region_keeps_its_place() -> None:
    model = head(pooling_heads=2)
    maps = torch.randn(2, CHANNELS, 3, 4, dtype=torch.float64)
    alone, _ = model(maps[:, :, 2:, 1:2])
    torch.testing.assert_close(model.embed_regions(maps)[:, 2, 1], alone)


def test_pooling_a_single_token_is_a_linear_map() -> None:
    torch.manual_seed(1)
    pooling = AttentionPooling(CHANNELS, heads=4).double()
    tokens = torch.randn(5, 3, CHANNELS, dtype=torch.float64)
    pooled, weights = pooling(tokens.flatten(0, 1)[:, None])
    torch.testing.assert_close(pooling.of_single(tokens).flatten(0, 1), pooled)
    assert torch.equal(weights, torch.ones_like(weights))


def test_the_attention_is_a_share_of_each_region_and_the_mean_has_none() -> None:
    maps = torch.randn(2, CHANNELS, 3, 4, dtype=torch.float64)
    _, weights = head(pooling_heads=2)(maps)
    assert weights is not None
    assert weights.shape == (2, 3, 4)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2, dtype=torch.float64))
    assert head(pooling_heads=None)(maps)[1] is None


def test_masked_images_reach_no_statistic() -> None:
    maps = torch.randn(4, CHANNELS, 2, 2, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True])
    models = [head(pooling_heads=2, norm="sync").train() for _ in range(2)]
    with_mask, _ = models[0](maps, mask)
    without, _ = models[1](maps[mask])
    torch.testing.assert_close(with_mask[mask], without)
    norms = [model.projection.norm for model in models]
    assert all(isinstance(norm, MaskedBatchNorm) for norm in norms)
    for ours, wanted in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(ours, wanted)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(InputError, match="3 heads do not divide 8"):
        head(pooling_heads=3)
