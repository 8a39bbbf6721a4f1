"""Accelerate behind one small class: devices, precision, ranks and the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor, nn

from distributed_pretrain.methods.base import Method


class Engine:
    """One process of a run, alone or one of several (gloo on CPUs, NCCL on GPUs).

    The loader never passes through Accelerate: ranks slice the global order themselves.
    """

    def __init__(self, *, precision: str) -> None:
        self._accelerator = Accelerator(
            mixed_precision="bf16" if precision == "bf16" else "no",
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process

    def prepare(self, method: Method) -> nn.Module:
        """The method moved to the device, its forward under autocast, in DDP with several ranks.

        Batch norms of the encoders share their statistics between GPUs. On CPUs torch has none
        that does, and each rank normalises with its own samples (`norm: group` avoids it).
        """
        if self.world_size > 1 and self.device.type == "cuda":
            method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
        wrapped: nn.Module = self._accelerator.prepare_model(method)
        return wrapped

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the run, for calls besides the wrapped forward."""
        context: AbstractContextManager[None] = self._accelerator.autocast()
        return context

    def without_reduction(self, model: nn.Module) -> AbstractContextManager[None]:
        """Leave gradients on their rank: for all but the last micro-batch of a step."""
        context: AbstractContextManager[None] = self._accelerator.no_sync(model)
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; DDP averages them over ranks."""
        self._accelerator.backward(loss)

    def mean_over_ranks(self, values: Tensor) -> Tensor:
        """The element-wise mean over ranks (no gradient)."""
        reduced: Tensor = self._accelerator.reduce(values, reduction="mean")
        return reduced

    def gather_rows(self, values: Tensor) -> Tensor:
        """Rows of all ranks, in rank order; every rank must hold the same shape."""
        gathered: Tensor = self._accelerator.gather(values)
        return gathered

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` (running statistics, say) with those of rank 0."""
        if self.world_size > 1:
            for tensor in tensors:
                tensor.copy_(broadcast(tensor.clone()))

    def wait_for_all(self) -> None:
        """A barrier."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, if there is one."""
        self._accelerator.end_training()


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm over all gradients, as a scalar on their device."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
