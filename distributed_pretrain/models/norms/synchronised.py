"""Batch norm of feature maps over all ranks, with as few exchanges and kernels as it takes.

torch's nn.SyncBatchNorm refuses CPUs, takes boolean masks that make the host wait three times a
layer (pytorch issue 78656), and sends other dtypes from a rank without maps than from the others,
which NCCL does not notice. Here every rank sends the same 2 x channels + 1 float64 numbers in
forward and 2 x channels in backward, adds them up, and nobody waits. On a GPU the passes over the
maps are torch's own kernels; elsewhere a few plain operations.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distributed_pretrain.losses.precision import at_least_float32
from distributed_pretrain.models.norms.rows import move_running_statistics, over_ranks
from distributed_pretrain.ranks import sum_over_ranks

Maps: TypeAlias = Float[Tensor, "batch channels rows columns"]
Channels: TypeAlias = Float[Tensor, " channels"]


def sync_batch_norm(layer: nn.BatchNorm2d, maps: Maps) -> Maps:
    """The maps normalised over those of all ranks, by `layer` in training mode.

    `move_running_statistics` keeps the statistics' means. A rank without maps still gives its
    parameters gradients of zeros.
    """
    normalised: Tensor
    normalised, mean, variance, count = _SyncBatchNorm.apply(
        maps, layer.weight, layer.bias, layer.eps
    )
    move_running_statistics(layer, mean, variance, count)
    return normalised


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Maps, weight: Channels, bias: Channels, eps: float
    ) -> tuple[Maps, Channels, Channels, Float[Tensor, ""]]:
        own_mean, own_variance = _moments(maps, eps)
        own_count = own_mean.new_full((), maps.numel() // maps.shape[1])
        mean, variance, count = over_ranks(own_mean, own_count * own_variance, own_count)
        statistics = torch.promote_types(maps.dtype, torch.float32)
        scale = (variance + eps).rsqrt().to(statistics)
        mean, variance = mean.to(statistics), variance.to(statistics)
        ctx.save_for_backward(maps, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        normalised = _normalise(maps, weight, bias, mean, scale, eps)
        return normalised, mean, variance, count.to(statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Maps, *_: Any) -> tuple[Tensor | None, ...]:
        maps, weight, mean, scale, count = ctx.saved_tensors
        sums, products = _gradient_sums(gradient, maps, mean, scale, weight)
        of_all = sum_over_ranks(torch.cat([sums, products])).chunk(2)
        d_maps = _map_gradient(gradient, maps, mean, scale, weight, of_all, count)
        # Those of the parameters are this rank's own: DDP averages them.
        return d_maps, (products * scale).to(weight.dtype), sums.to(weight.dtype), None


def _moments(maps: Maps, eps: float) -> tuple[Channels, Channels]:
    """Mean and biased variance over each channel in float64; zeros without maps."""
    if not maps.numel():
        return (zeros := maps.new_zeros(maps.shape[1], dtype=torch.float64)), zeros
    if maps.is_cuda:
        mean, inverse_deviation = torch.batch_norm_stats(maps, eps)
        return mean.double(), inverse_deviation.double().pow(-2) - eps
    variance, mean = torch.var_mean(at_least_float32(maps), dim=(0, 2, 3), correction=0)
    return mean.double(), variance.double()


def _normalise(
    maps: Maps, weight: Channels, bias: Channels, mean: Channels, scale: Channels, eps: float
) -> Maps:
    if maps.is_cuda and maps.numel():
        normalised: Tensor = torch.batch_norm_elemt(maps, weight, bias, mean, scale, eps)
        return normalised
    factor = weight * scale
    shift = bias - mean * factor
    return torch.addcmul(_over_maps(shift), maps, _over_maps(factor)).to(maps.dtype)


def _gradient_sums(
    gradient: Maps, maps: Maps, mean: Channels, scale: Channels, weight: Channels
) -> tuple[Channels, Channels]:
    """Over each channel the sum of the gradient, and of the gradient times (maps - mean)."""
    if maps.is_cuda and maps.numel():
        sums, products, _, _ = torch.batch_norm_backward_reduce(
            gradient, maps, mean, scale, weight, True, False, False
        )
        return sums, products
    gradient = gradient.to(mean.dtype)
    products = (gradient * (maps - _over_maps(mean))).sum(dim=(0, 2, 3))
    return gradient.sum(dim=(0, 2, 3)), products


def _map_gradient(
    gradient: Maps,
    maps: Maps,
    mean: Channels,
    scale: Channels,
    weight: Channels,
    of_all_ranks: tuple[Channels, ...],
    count: Float[Tensor, ""],
) -> Maps:
    """(gradient - its mean - (maps - mean) * scale^2 * mean of the products) * scale * weight."""
    sums, products = of_all_ranks
    if maps.is_cuda and maps.numel():
        found: Tensor = torch.batch_norm_backward_elemt(
            gradient, maps, mean, scale, weight, sums, products, count.int().unsqueeze(0)
        )
        return found
    shares = (each / count.clamp(min=1) for each in (sums, products * scale.square()))
    of_mean, of_scale = (_over_maps(each.to(mean.dtype)) for each in shares)
    centred = maps - _over_maps(mean)
    return ((gradient - of_mean - centred * of_scale) * _over_maps(scale * weight)).to(maps.dtype)


def _over_maps(channels: Channels) -> Float[Tensor, "channels 1 1"]:
    return channels[:, None, None]
