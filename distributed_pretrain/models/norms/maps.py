"""Batch normalisation of feature maps with the statistics of all ranks, on any device."""

from __future__ import annotations

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import at_least_float32, full_precision
from distributed_pretrain.models.norms.batch_statistics import (
    batch_statistics,
    normalise,
    update_running_statistics,
)
from distributed_pretrain.ranks import world_size

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, by state dict and by function, over the maps of all ranks in training.

    The ranks may hold different numbers of maps, or none. nn.SyncBatchNorm refuses CPUs; this
    one runs everywhere, and `with_device_sync_norms` exchanges it where torch's is faster. In
    one process, and in evaluation, it is nn.BatchNorm2d itself.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps, momentum)

    def forward(
        self, input: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The normalised maps, in the dtype of `input`; statistics in at least float32."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        with full_precision(input):
            positions = at_least_float32(input).movedim(1, -1)
            batch = batch_statistics(positions, across_ranks=True)
            update_running_statistics(self.running_mean, self.running_var, batch, self.momentum)
            self.num_batches_tracked += 1
            normalised = normalise(
                positions,
                batch.mean,
                batch.variance,
                weight=self.weight,
                bias=self.bias,
                eps=self.eps,
            )
            return normalised.movedim(-1, 1).to(input.dtype)


def with_device_sync_norms(module: _ModuleT) -> _ModuleT:
    """`module` itself, each SyncBatchNorm2d in it exchanged for torch's fused nn.SyncBatchNorm.

    For several GPUs, before DDP: the same statistics with fewer kernels, and an error on a CPU.
    It gathers each rank's mean, variance and count in float32, where ours adds them up in float64.
    Parameters and buffers stay the same tensors under the same names; other batch norms stay.
    """
    for layer in list(module.modules()):
        for name, child in layer.named_children():
            if isinstance(child, SyncBatchNorm2d):
                setattr(layer, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return module
