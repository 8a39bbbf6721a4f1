"""Batch norm of feature maps over all ranks, with as few exchanges and kernels as it takes.

torch's nn.SyncBatchNorm refuses CPUs, takes boolean masks that make the host wait three times a
layer (pytorch issue 78656), and sends other dtypes from a rank without maps than from the others,
which NCCL does not notice. Here every rank sends the same 2 x channels + 1 float64 numbers in
forward and 2 x channels in backward, adds them up, and nobody waits. On a GPU the passes over the
maps are torch's own kernels; elsewhere a few plain operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distributed_pretrain.losses.precision import at_least_float32
from distributed_pretrain.models.norms.groups import Seen, group_sizes, move_after_forward
from distributed_pretrain.models.norms.rows import move_running_statistics, over_ranks
from distributed_pretrain.ranks import sum_of_statistics

Maps: TypeAlias = Float[Tensor, "batch channels rows columns"]
Channels: TypeAlias = Float[Tensor, " channels"]
OfGroups: TypeAlias = Float[Tensor, "groups channels"]


# Exchanges, and what is kept for the forward's end, are nothing for a compiler.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def sync_batch_norm(layer: nn.BatchNorm2d, maps: Maps, *, across_ranks: bool = True) -> Maps:
    """The maps normalised over those of all ranks, or of this one, by `layer` in training mode.

    In their groups (`models.norms.groups`). `move_running_statistics` keeps the statistics' means.
    A rank without maps still gives its parameters gradients of zeros.
    """
    sizes = group_sizes(len(maps))
    normalised: Tensor
    if across_ranks:
        normalised, mean, variance, count = _SyncBatchNorm.apply(
            maps, layer.weight, layer.bias, layer.eps, sizes
        )
        if len(sizes) == 1:
            mean, variance, count = mean[0], variance[0], count[0]
        move_running_statistics(layer, mean, variance, count)
        return normalised
    normalised, *statistics = _GroupedBatchNorm.apply(
        maps, layer.weight, layer.bias, layer.eps, sizes
    )
    found = zip(statistics[::2], statistics[1::2], strict=True)
    positions = maps.shape[2] * maps.shape[3]
    seen = [Seen(*next(found), size * positions) if size else None for size in sizes]
    move_after_forward(layer, seen)
    return normalised


class _SyncBatchNorm(torch.autograd.Function):
    """Each group over all ranks. G groups, C channels."""

    @staticmethod
    def forward(
        ctx: Any, maps: Maps, weight: Channels, bias: Channels, eps: float, sizes: Sequence[int]
    ) -> tuple[Maps, OfGroups, OfGroups, Float[Tensor, " groups"]]:
        groups = maps.split(list(sizes))
        own_means, own_variances = zip(*(_moments(group, eps) for group in groups), strict=True)
        own_mean_GC, own_variance_GC = torch.stack(own_means), torch.stack(own_variances)
        own_count_G = torch.stack(
            [own_mean_GC.new_full((), group.numel() // maps.shape[1]) for group in groups]
        )
        own_squares_GC = own_count_G.unsqueeze(-1) * own_variance_GC
        mean_GC, variance_GC, count_G = over_ranks(own_mean_GC, own_squares_GC, own_count_G)
        statistics = torch.promote_types(maps.dtype, torch.float32)
        scale_GC = (variance_GC + eps).rsqrt().to(statistics)
        mean_GC, variance_GC = mean_GC.to(statistics), variance_GC.to(statistics)
        ctx.save_for_backward(maps, weight, mean_GC, scale_GC, count_G)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mean_GC, variance_GC, count_G)
        of_groups = zip(groups, mean_GC, scale_GC, strict=True)
        normalised = _joined(
            [_normalise(each, weight, bias, mean, scale, eps) for each, mean, scale in of_groups]
        )
        return normalised, mean_GC, variance_GC, count_G.to(statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Maps, *_: Any) -> tuple[Tensor | None, ...]:
        maps, weight, mean_GC, scale_GC, count_G = ctx.saved_tensors
        groups = list(
            zip(
                gradient.split(list(ctx.sizes)),
                maps.split(list(ctx.sizes)),
                mean_GC,
                scale_GC,
                strict=True,
            )
        )
        own_GC2 = torch.stack([torch.cat(_gradient_sums(*each, weight)) for each in groups])
        of_all = sum_of_statistics(own_GC2)
        d_maps = _joined(
            [
                _map_gradient(*each, weight, sums.chunk(2), count)
                for each, sums, count in zip(groups, of_all, count_G, strict=True)
            ]
        )
        # Those of the parameters are this rank's own: DDP averages them.
        sums_GC, products_GC = own_GC2.chunk(2, dim=1)
        d_weight, d_bias = (products_GC * scale_GC).sum(dim=0), sums_GC.sum(dim=0)
        return d_maps, d_weight.to(weight.dtype), d_bias.to(weight.dtype), None, None


class _GroupedBatchNorm(torch.autograd.Function):
    """Each group of one rank; those without maps are left out."""

    @staticmethod
    def forward(
        ctx: Any, maps: Maps, weight: Channels, bias: Channels, eps: float, sizes: Sequence[int]
    ) -> tuple[Tensor, ...]:
        ctx.sizes = [size for size in sizes if size]
        ctx.set_materialize_grads(False)  # the statistics' would be two launches a group
        statistics: list[Tensor] = []
        parts = []
        for group in maps.split(ctx.sizes):
            if has_kernels(group):
                mean, scale = torch.batch_norm_stats(group, eps)
            else:
                mean, variance = _moments(group, eps)
                kind = torch.promote_types(maps.dtype, torch.float32)
                mean, scale = mean.to(kind), (variance + eps).rsqrt().to(kind)
            statistics += mean, scale
            parts.append(_normalise(group, weight, bias, mean, scale, eps))
        ctx.save_for_backward(maps, weight, *statistics)
        ctx.mark_non_differentiable(*statistics)
        return (_joined(parts), *statistics)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Maps, *_: Any) -> tuple[Tensor | None, ...]:
        maps, weight, *statistics = ctx.saved_tensors
        parts, centred, of_bias = [], [], []
        positions = maps.shape[2] * maps.shape[3]
        # One launch for each size that there is.
        counts = {
            size: torch.full((), size * positions, dtype=torch.int32, device=maps.device)
            for size in set(ctx.sizes)
        }
        of_groups = zip(
            gradient.split(ctx.sizes),
            maps.split(ctx.sizes),
            statistics[::2],
            statistics[1::2],
            strict=True,
        )
        for d_group, group, mean, scale in of_groups:
            count = counts[len(group)]
            sums, products = _gradient_sums(d_group, group, mean, scale, weight)
            parts.append(
                _map_gradient(d_group, group, mean, scale, weight, (sums, products), count)
            )
            centred.append(products)
            of_bias.append(sums)
        # A launch for all groups.
        of_weight = list(torch._foreach_mul(centred, statistics[1::2]))
        d_weight, d_bias = torch.stack(of_weight + of_bias).unflatten(0, (2, -1)).sum(dim=1)
        return _joined(parts), d_weight.to(weight.dtype), d_bias.to(weight.dtype), None, None


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def has_kernels(maps: Maps) -> bool:
    """Whether torch's own kernels take these: on a GPU, unless there are none."""
    return maps.is_cuda and maps.numel() > 0


def _moments(maps: Maps, eps: float) -> tuple[Channels, Channels]:
    """Mean and biased variance over each channel in float64; zeros without maps."""
    if not maps.numel():
        return (zeros := maps.new_zeros(maps.shape[1], dtype=torch.float64)), zeros
    if has_kernels(maps):
        mean, inverse_deviation = torch.batch_norm_stats(maps, eps)
        return mean.double(), inverse_deviation.double().pow(-2) - eps
    variance, mean = torch.var_mean(at_least_float32(maps), dim=(0, 2, 3), correction=0)
    return mean.double(), variance.double()


def _normalise(
    maps: Maps, weight: Channels, bias: Channels, mean: Channels, scale: Channels, eps: float
) -> Maps:
    if has_kernels(maps):
        normalised: Tensor = torch.batch_norm_elemt(maps, weight, bias, mean, scale, eps)
        return normalised
    factor = weight * scale
    shift = bias - mean * factor
    return torch.addcmul(_over_maps(shift), maps, _over_maps(factor)).to(maps.dtype)


def _gradient_sums(
    gradient: Maps, maps: Maps, mean: Channels, scale: Channels, weight: Channels
) -> tuple[Channels, Channels]:
    """Over each channel the sum of the gradient, and of the gradient times (maps - mean)."""
    if has_kernels(maps):
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
    count: Shaped[Tensor, ""],
) -> Maps:
    """(gradient - its mean - (maps - mean) * scale^2 * mean of the products) * scale * weight."""
    sums, products = of_all_ranks
    if has_kernels(maps):
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
