"""DeepSpeed's ZeRO behind the engine's interface, with checkpoints that any engine reads.

Stages 0 to 3 give one process's gradients with factor 1 (tests/distributed/test_deepspeed.py).
What reaches into DeepSpeed 0.19's optimizers, for want of a public answer, stands at the end here.
"""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager
from typing import Any

import torch
from deepspeed.runtime.zero import GatheredParameters
from deepspeed.utils import (
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from jaxtyping import Bool
from torch import Tensor, nn

from data_shards.errors import InputError
from data_shards.starting import launcher_number
from distributed_pretrain.ranks import world_size
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.layout import MOMENTS
from distributed_pretrain.training.settings import DeepSpeedConfig, TrainingConfig


class DeepSpeedEngine(Engine):
    """One rank of a DeepSpeed run: optimizer states (1), gradients (2) or weights (3) are cut.

    States go in and out in the form of one process (`Engine.model_state` and so on), so a run
    may change between DDP and any stage, and between numbers of ranks. A method's outputs must
    be a dataclass: DeepSpeed hangs hooks on the tensors of tuples and dicts it returns, and
    `torch.autograd.grad` through them would start a reduction.
    """

    def __init__(self, training: TrainingConfig) -> None:
        """Raises InputError for a start, a machine or settings that ZeRO cannot work with."""
        config = training.distributed
        assert isinstance(config, DeepSpeedConfig)
        _check(training, config)
        self._stage = config.zero_stage
        self._clip_norm = training.clip_gradient_norm
        super().__init__(training, deepspeed=deepspeed_settings(training, config))
        if self._accelerator.deepspeed_plugin is None or self.world_size != world_size():
            self.close()
            raise InputError(
                "training.distributed.name=deepspeed needs GPUs, and Accelerate found none: "
                "use training.distributed.name=ddp"
            )
        logging.getLogger("DeepSpeed").addFilter(_is_news)

    def micro_batch(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one micro-batch: stages 0 and 1 reduce over ranks at the last, 2 and 3 each."""
        self._deepspeed.set_gradient_accumulation_boundary(last)
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; the ranks' average stands after the last micro-batch."""
        self._deepspeed.backward(loss)

    def gradient_norm(self) -> Tensor:
        """The Euclidean norm over all gradients of the step; infinite where one is not finite."""
        return super().gradient_norm() if self._zero is None else self._zero.gradient_norm()

    def update(
        self,
        learning_rate: float,
        *,
        clip_norm: float | None,
        norm: Tensor,
        skip: Bool[Tensor, ""] | None = None,
    ) -> None:
        """See `Engine`; the host waits for `skip`."""
        del norm  # DeepSpeed clips by one that it measures itself, which is the same
        assert clip_norm == self._clip_norm, "DeepSpeed's clipping is fixed from the start"
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        (self.drop_gradients if skip is not None and bool(skip) else self._deepspeed.step)()

    def drop_gradients(self) -> None:
        """Forget the gradients of this step."""
        if self._zero is None:
            super().drop_gradients()
        else:
            self._zero.drop_gradients()

    def model_state(self) -> dict[str, Tensor]:
        """The method's state dict, whole on every rank; copied only in stage 3."""
        if self._stage < 3:
            return super().model_state()
        with GatheredParameters(list(self.objective.parameters())):
            return {name: tensor.clone() for name, tensor in super().model_state().items()}

    def optimizer_state(self) -> dict[str, Any]:
        """What a torch optimizer over all parameters would say, on the CPU; whole on rank 0."""
        if self._zero is None:
            return super().optimizer_state()
        groups = [
            {name: current[name] for name in group} | {"params": group["params"]}
            for group, current in zip(self._groups, self.optimizer.param_groups, strict=True)
        ]
        state: dict[int, dict[str, Tensor]] = {}
        # Without an entry before the first step, as in torch.
        for entry in list(self.optimizer.state.values())[:1]:
            for number, parameter in enumerate(self.parameters):
                moments = {n: safe_get_full_optimizer_state(parameter, n) for n in MOMENTS}
                if self.is_main:
                    state[number] = {"step": entry["step"].to("cpu", copy=True)}
                    state[number] |= {name: moment.cpu() for name, moment in moments.items()}
        return {"state": state, "param_groups": groups}

    def load_state(self, model: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Go on from what `model_state` and `optimizer_state` of any engine gave; see `Engine`."""
        if self._zero is None:
            super().load_state(model, optimizer)
            return
        parameters = list(self.objective.parameters()) if self._stage == 3 else []
        with GatheredParameters(parameters, modifier_rank=0, enabled=self._stage == 3):
            self.objective.load_state_dict(model)
        trained = [name for name, p in self.objective.named_parameters() if p.requires_grad]
        for name, parameter in zip(trained, self.parameters, strict=True):
            self._zero.set_weights(parameter, model[name].to(self.device))
        own, loaded = self.optimizer.param_groups, optimizer["param_groups"]
        for current, its in zip(own, loaded, strict=True):
            current["lr"] = its["lr"]
        self._load_moments(optimizer["state"])

    def _wrap(self) -> None:
        # DeepSpeed puts its own flat tensors into the optimizer's groups.
        self._groups: list[dict[str, Any]] = self.optimizer.state_dict()["param_groups"]
        self._deepspeed, _ = self._accelerator.prepare(self.objective, self.optimizer)
        self._model = self._deepspeed
        self._zero: _CutOptimizer | _CutParameters | None = None
        if self._stage in (1, 2):
            self._zero = _CutOptimizer(self._deepspeed.optimizer)
        elif self._stage == 3:
            self._zero = _CutParameters(self._deepspeed.optimizer, self.rank, self.world_size)

    def _load_moments(self, state: dict[int, dict[str, Tensor]]) -> None:
        assert self._zero is not None
        self.optimizer.state.clear()
        if state:
            (steps,) = {float(entry["step"]) for entry in state.values()}
            for flat in self._zero.flat_cuts():
                # A fused Adam counts on the device.
                self.optimizer.state[flat] = {"step": torch.tensor(steps, device=flat.device)}
                self.optimizer.state[flat] |= {name: torch.zeros_like(flat) for name in MOMENTS}
        self._zero.connect_moments()
        for number, entry in state.items():
            for name in MOMENTS:
                moment = entry[name].to(self.device)
                self._zero.set_moment(self.parameters[number], moment, name)


def deepspeed_settings(training: TrainingConfig, config: DeepSpeedConfig) -> dict[str, Any]:
    """DeepSpeed's JSON document for one run; written out, as its launchers' defaults differ.

    Parameters, gradients, their reduction and the optimizer are float32; `bf16` casts inside the
    forward only, as autocast does under DDP.
    """
    return {
        # Any number: it is for reports, which are off.
        "train_micro_batch_size_per_gpu": 1,
        # The losses come divided and the engine marks the last micro-batch: a number here would
        # divide the gradients once more.
        "gradient_accumulation_steps": 1,
        # Written even when off (0): left open, Accelerate fills in 1.0.
        "gradient_clipping": training.clip_gradient_norm or 0.0,
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": config.bucket_elements,
            "allgather_bucket_size": config.bucket_elements,
            "overlap_comm": config.overlap_communication,
            "reduce_scatter": True,
            "contiguous_gradients": True,
        },
        # torch's own Adam: what DDP runs with, and what canonical checkpoints hold.
        "zero_allow_untested_optimizer": True,
        # Either would turn the parameters themselves into 16-bit numbers.
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        # Without the empty list, gradients of linear and convolution layers travel in 16 bits.
        "torch_autocast": {
            "enabled": training.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "communication_data_type": "fp32",
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


def _check(training: TrainingConfig, config: DeepSpeedConfig) -> None:
    """Raise InputError for a start without a launcher, and for settings that ZeRO would ignore."""
    if None in (launcher_number("WORLD_SIZE"), launcher_number("LOCAL_RANK")):
        raise InputError(
            "training.distributed.name=deepspeed needs a launcher, on one GPU too: start with "
            "accelerate launch or torchrun, or use training.distributed.name=ddp"
        )
    # Stage 3 keeps no whole weights for a second backward through one forward, nor for a compiler.
    wanted_values = {"channels_last": "false"}
    if training.precision == "fp16":  # for which DeepSpeed has a loss scaler of its own, that waits
        wanted_values["precision"] = "bf16"
    if config.zero_stage == 3:
        wanted_values |= {"gradient_norms_every_steps": "null", "compile": "false"}
    for name, wanted in wanted_values.items():
        if value := getattr(training, name):
            raise InputError(
                f"training.{name}={value} does not go with DeepSpeed's zero_stage="
                f"{config.zero_stage}: set it to {wanted}, or use training.distributed.name=ddp"
            )


def _is_news(record: logging.LogRecord) -> bool:
    # Stage 3 warns of modules that return dataclasses; ours hold no weights that it had to bring.
    return "unknown inputs or outputs type" not in record.getMessage()


class _CutOptimizer:
    """Stages 1 and 2: every rank holds the whole weights and one cut of master weights and moments.

    All of a group's parameters lie in one flat tensor, which is cut at equal lengths.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def gradient_norm(self) -> Tensor:
        norm: Tensor = self._optimizer.scaled_global_norm()
        return norm

    def drop_gradients(self) -> None:
        # There is no public way; this is what `step` does after an overflow.
        self._optimizer.zero_grad()
        for gradients in (self._optimizer.averaged_gradients, self._optimizer.all_grad_tensors):
            for group in gradients:
                gradients[group] = None

    def flat_cuts(self) -> list[Tensor]:
        cuts: list[Tensor] = self._optimizer.single_partition_of_fp32_groups
        return cuts

    def connect_moments(self) -> None:
        # Parameters know their place in the moments from the first step on; these are new.
        self._optimizer._hp_optimizer_states_linked = False
        if self._optimizer.optimizer.state:
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def set_weights(self, parameter: nn.Parameter, value: Tensor) -> None:
        safe_set_full_fp32_param(parameter, value)

    def set_moment(self, parameter: nn.Parameter, value: Tensor, name: str) -> None:
        safe_set_full_optimizer_state(parameter, value, name)


class _CutParameters:
    """Stage 3: each rank holds one cut of every weight and moment, the last filled up."""

    def __init__(self, optimizer: Any, rank: int, ranks: int) -> None:
        self._optimizer = optimizer
        self._rank = rank
        self._ranks = ranks

    def gradient_norm(self) -> Tensor:
        # -1 stands for a group that is not finite.
        norms = torch.stack(self._optimizer._get_norm_groups()).float()
        return torch.where((norms < 0).any(), torch.inf, norms.norm())

    def drop_gradients(self) -> None:
        # The next backward overwrites its buffers.
        self._optimizer.zero_grad()

    def flat_cuts(self) -> list[Tensor]:
        cuts: list[Tensor] = self._optimizer.fp32_partitioned_groups_flat
        return cuts

    def connect_moments(self) -> None:
        """Nothing to do: moments are looked up by the flat tensor."""

    def set_weights(self, parameter: nn.Parameter, value: Tensor) -> None:
        safe_set_local_fp32_param(parameter, self._cut(parameter, value))

    def set_moment(self, parameter: nn.Parameter, value: Tensor, name: str) -> None:
        safe_set_local_optimizer_state(parameter, self._cut(parameter, value), name)

    def _cut(self, parameter: Any, value: Tensor) -> Tensor:
        length: int = parameter.ds_tensor.numel()
        filling = length * self._ranks - value.numel()
        filled = nn.functional.pad(value.flatten(), (0, filling))
        return filled.narrow(0, length * self._rank, length)
