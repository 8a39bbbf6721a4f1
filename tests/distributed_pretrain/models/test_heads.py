from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.models.heads import GlobalImageHead, Projection
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.rows import MaskedBatchNorm, RowGroupNorm
from distributed_pretrain.models.pooling import AttentionPooling

CHANNELS, DIM = 8, 6


def rows(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64) * 3 + 5


def test_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        projection = Projection(2048)
    assert sum(each.numel() for each in projection.parameters()) == 5_249_536


def test_biases_start_at_zero_and_weights_kaiming_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    projection = Projection(256, hidden_dim=512, output_dim=128)
    assert not projection.expand.bias.any()
    assert not projection.reduce.bias.any()
    assert projection.expand.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)
    assert projection.reduce.weight.std().item() == pytest.approx(math.sqrt(1 / 128), rel=0.02)


@pytest.mark.parametrize("training", [True, False])
def test_without_padding_the_norm_is_batch_norm(training: bool) -> None:
    ours, reference = MaskedBatchNorm(4).double(), nn.BatchNorm1d(4).double()
    for each in (ours, reference):
        with torch.no_grad():
            each.weight.copy_(torch.arange(1.0, 5.0))
            each.bias.copy_(torch.arange(4.0))
        each(rows(8, 4))
        each.train(training)
    results = []
    for each in (ours, reference):
        values = rows(6, 4).requires_grad_()
        output = each(values)
        (output**3).sum().backward()
        results.append([output, values.grad, each.weight.grad, each.bias.grad])
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    for name, expected_buffer in reference.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), expected_buffer, rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("padding", [100.0, math.nan])
def test_padded_rows_reach_neither_statistics_nor_gradients(padding: float, norm: Norm) -> None:
    torch.manual_seed(1)
    plain = Projection(5, hidden_dim=8, output_dim=3, norm=norm).double()
    masked = Projection(5, hidden_dim=8, output_dim=3, norm=norm).double()
    masked.load_state_dict(plain.state_dict())
    mask = torch.arange(4) < torch.tensor([[4], [1], [2]])
    real = rows(7, 5).requires_grad_()
    padded = torch.full((3, 4, 5), padding, dtype=torch.float64)
    padded[mask] = real.detach()
    padded.requires_grad_()

    assert plain.norm is not None
    assert masked.norm is not None
    expected, ours = plain(real), masked(padded, mask)[mask]
    (expected**2).sum().backward()
    (ours**2).sum().backward()

    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    assert padded.grad is not None
    assert real.grad is not None
    torch.testing.assert_close(padded.grad[mask], real.grad, rtol=1e-9, atol=1e-12)
    assert not padded.grad[~mask].any()
    for (name, parameter), reference in zip(
        masked.norm.named_parameters(), plain.norm.parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, reference.grad, msg=name)
    for name, buffer in plain.norm.named_buffers():
        torch.testing.assert_close(masked.norm.get_buffer(name), buffer)


def test_a_new_frozen_norm_is_the_identity_and_never_learns_statistics() -> None:
    norm = MaskedBatchNorm(4, statistics="frozen").double()
    before = {name: each.clone() for name, each in norm.named_buffers()}
    values = rows(6, 4)
    torch.testing.assert_close(norm(values), values / math.sqrt(1 + 1e-5))
    norm(values).sum().backward()
    assert norm.weight.grad is not None
    assert all(torch.equal(norm.get_buffer(name), each) for name, each in before.items())


@pytest.mark.parametrize(("dim", "groups"), [(2048, 32), (256, 16), (100, 5), (32, 2), (7, 1)])
def test_rows_are_normalised_over_groups_of_at_least_16_channels(dim: int, groups: int) -> None:
    norm = RowGroupNorm(dim).double()
    output = norm(rows(2, 3, dim)).view(6, groups, -1)
    torch.testing.assert_close(output.mean(dim=2), torch.zeros(6, groups, dtype=torch.float64))
    deviation = output.var(dim=2, correction=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=1e-3, atol=0)


def test_with_group_norm_no_row_sees_another() -> None:
    torch.manual_seed(0)
    projection = Projection(5, hidden_dim=32, output_dim=3, norm="group").double()
    torch.testing.assert_close(projection(rows(4, 5))[:1], projection(rows(4, 5)[:1]))


def test_the_variance_survives_a_mean_far_from_zero() -> None:
    norm = MaskedBatchNorm(1)
    values = 10_000 + torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    norm(values)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * 5 / 3, rel=1e-4)


def test_no_real_row_leaves_the_running_statistics_alone() -> None:
    norm = MaskedBatchNorm(4).double()
    output = norm(rows(3, 4), torch.zeros(3, dtype=torch.bool))
    assert output.isfinite().all()
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()


def test_bfloat16_rows_keep_their_dtype_and_float32_statistics() -> None:
    norm = MaskedBatchNorm(4)
    with torch.autocast("cpu", torch.bfloat16):
        output = norm(rows(64, 4).bfloat16())
        assert RowGroupNorm(4)(rows(64, 4).bfloat16()).dtype == torch.bfloat16
    assert output.dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32
    assert output.float().std(dim=0).tolist() == pytest.approx([1] * 4, rel=0.05)


@pytest.mark.parametrize("padding", [100.0, math.nan])
def test_a_head_without_norm_is_two_linear_layers_that_padding_does_not_reach(
    padding: float,
) -> None:
    torch.manual_seed(1)
    head = Projection(5, hidden_dim=8, output_dim=3, norm=None).double()
    real = rows(2, 5)
    expected = head.reduce(torch.relu(head.expand(real)))
    padded = torch.cat([real, torch.full((1, 5), padding, dtype=torch.float64)])
    ours = head(padded, torch.tensor([True, True, False]))
    torch.testing.assert_close(ours[:2], expected)
    ours[:2].sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in head.parameters())
    assert not any(isinstance(each, MaskedBatchNorm | RowGroupNorm) for each in head.modules())


def test_a_norm_after_the_second_layer_has_no_trained_scale() -> None:
    torch.manual_seed(1)
    head = Projection(5, hidden_dim=8, output_dim=3, output_norm=True).double()
    output = head(rows(64, 5))
    torch.testing.assert_close(output.mean(dim=0), torch.zeros(3, dtype=torch.float64))
    deviation = output.std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), rtol=1e-3, atol=0)
    output.pow(3).sum().backward()
    untrained = {name for name, each in head.named_parameters() if each.grad is None}
    assert untrained == {"output_norm.weight", "output_norm.bias"}


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
