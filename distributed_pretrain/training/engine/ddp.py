"""Accelerate behind one small class: devices, precision, ranks, gradients and updates."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, DeepSpeedPlugin
from accelerate.utils import InitProcessGroupKwargs
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_shards.errors import InputError
from data_shards.starting import launcher_number
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.models.norms.groups import in_groups
from distributed_pretrain.ranks import share_statistics_among
from distributed_pretrain.training.engine.device import LOWERED, set_device_up
from distributed_pretrain.training.engine.layout import StateLayout
from distributed_pretrain.training.engine.loss_scale import LossScale
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig


def build_optimizer(config: OptimizerConfig, objective: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters."""
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [p for p in objective.parameters() if p.requires_grad],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )


class Engine:
    """One process of a run, alone or one of several in DDP (gloo on CPUs, NCCL on GPUs).

    The loader never passes through Accelerate: ranks slice the global order themselves. A step
    is `forward`, `backward` for each micro-batch inside `micro_batch`, then `gradient_norm` and
    `update`. Every rank makes the same calls. `compares_passes`: whether the next gradient caching
    is to check that its two forwards give the same (see `training.compiling`).
    """

    compares_passes = False

    def __init__(
        self, training: TrainingConfig, *, deepspeed: dict[str, Any] | None = None
    ) -> None:
        set_device_up(training)
        # Stage 3 would cut up hub models while transformers loads them.
        plugin = deepspeed and DeepSpeedPlugin(hf_ds_config=deepspeed, zero3_init_flag=False)
        timeout = timedelta(seconds=training.collective_timeout_seconds)
        self._accelerator = Accelerator(
            # Left to itself, Accelerate takes ranks without a GPU for single processes.
            cpu=deepspeed is None and not torch.cuda.is_available(),
            deepspeed_plugin=plugin,
            # Ours is `autocast`; a launcher's fp16 would scale gradients behind our back.
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
        )
        launched, found = launcher_number("WORLD_SIZE") or 1, self._accelerator.num_processes
        if found != launched:
            raise InputError(
                f"WORLD_SIZE={launched}, but {found} processes found each other: "
                "start ranks with torchrun, accelerate launch or srun, one process a rank"
            )
        self._lowered = LOWERED.get(training.precision)
        self._pack_reports = training.pack_reports
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self.is_main: bool = self._accelerator.is_main_process
        self._share_statistics(training.norm_ranks)
        fp16 = self._lowered is torch.float16
        self.loss_scale = LossScale(self.device) if fp16 else None

    def _share_statistics(self, ranks: int | None) -> None:
        if ranks is not None and ranks < self.world_size and self.world_size % ranks:
            raise InputError(
                f"training.norm_ranks={ranks} does not divide {self.world_size} ranks: choose a "
                f"divisor of {self.world_size}, or null for all"
            )
        share_statistics_among(ranks)

    def prepare(self, objective: Objective, optimizer: torch.optim.Optimizer) -> None:
        """Take both over; the method is on the device already."""
        self.objective = objective
        self.optimizer = optimizer
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        # Before any engine cuts them up.
        self._layout = StateLayout(objective.state_dict(), self.parameters)
        self._wrap()

    def _wrap(self) -> None:
        self._model: nn.Module = self.objective
        if self.world_size > 1:
            # By no device's number: where each rank sees its own GPU alone, that is 0 for all.
            # Ranks normalise with batch statistics or shared ones: running statistics of rank 0
            # need not travel in every forward (see `Trainer`, before a validation).
            self._model = DistributedDataParallel(
                self.objective, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    @property
    def packs_reports(self) -> bool:
        """Whether the text encoders are to read reports packed."""
        return self.device.type == "cuda" if self._pack_reports is None else self._pack_reports

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the run."""
        return torch.autocast(self.device.type, self._lowered, enabled=self._lowered is not None)

    def forward(self, batch: Batch, *, groups: int = 1) -> Any:
        """The method's outputs, for a backward pass; batch norms see each group of rows alone."""
        with self.autocast(), in_groups(groups):
            return self._model(batch)

    @contextlib.contextmanager
    def kept_casts(self) -> Iterator[None]:
        """Around the forwards of a step, without no_grad: weights are cast once for all.

        Each autocast would drop its copies at its end.
        """
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            if torch.autocast_decrement_nesting() == 0:
                torch.clear_autocast_cache()

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        """Around the forward and backward of one micro-batch: reduced over ranks at the last."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return contextlib.nullcontext()
        context: AbstractContextManager[None] = self._model.no_sync()
        return context

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; the ranks' average stands after the last micro-batch."""
        self.scaled(loss).backward()

    def scaled(self, loss: Tensor) -> Tensor:
        """What to walk backward from in place of `loss`: in fp16 a multiple."""
        return loss if self.loss_scale is None else self.loss_scale.scaled(loss)

    def unscaled(self, gradient: Tensor) -> Tensor:
        """The gradient of a loss that was `scaled`, as if it had not been."""
        return gradient if self.loss_scale is None else self.loss_scale.unscaled(gradient)

    def gradient_norm(self) -> Tensor:
        """The Euclidean norm over all gradients of the step, the same on every rank.

        Once a step, as it also takes the scale of fp16 out of them.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.loss_scale is not None:
            self.loss_scale.unscale_(gradients)
        return torch.nn.utils.get_total_norm(gradients)

    def update(
        self,
        learning_rate: float,
        *,
        clip_norm: float | None,
        norm: Tensor,
        skip: Bool[Tensor, ""] | None = None,
    ) -> None:
        """One optimizer step; gradients longer than `clip_norm` are shortened to it.

        Where `skip` is True, weights, moments and their counts stay as they are: the fused kernels
        read that on the device, and the host does not wait to know.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip_norm, norm)
        # What torch's gradient scalers set, too.
        self.optimizer.found_inf = None if skip is None else skip.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        if self.loss_scale is not None:
            self.loss_scale.update(torch.zeros_like(norm).bool() if skip is None else skip)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients of this step."""
        self.optimizer.zero_grad(set_to_none=True)

    def model_state(self) -> dict[str, Tensor]:
        """The method's state dict, whole on rank 0; not copied."""
        return self.objective.state_dict()

    def optimizer_state(self) -> dict[str, Any]:
        """The state dict of a torch optimizer over all parameters, whole on rank 0; not copied."""
        return self.optimizer.state_dict()

    def mismatch(self, model: dict[str, Tensor], optimizer: dict[str, Any]) -> str | None:
        """What keeps `load_state` from taking these: a name, a shape or a type of number; or None.

        Fused updates write beyond moments of other shapes.
        """
        return self._layout.mismatch(model, optimizer)

    def load_state(self, model: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Go on from what `model_state` and `optimizer_state` of any engine gave.

        There must be no `mismatch`. Decays, betas and the like are those of this run's config, and
        the rate is set anew by each `update`.
        """
        self.objective.load_state_dict(model)
        state = self._layout.laid_out(optimizer["state"])
        own, loaded = self.optimizer.state_dict()["param_groups"], optimizer["param_groups"]
        groups = [{**group, "lr": its["lr"]} for group, its in zip(own, loaded, strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def close(self) -> None:
        """Leave the process group, if there is one."""
        self._accelerator.end_training()
