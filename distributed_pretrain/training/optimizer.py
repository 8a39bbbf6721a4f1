"""The optimizer over what an objective trains."""

from __future__ import annotations

import torch
from torch import nn

from distributed_pretrain.training.settings import OptimizerConfig


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


def use_channels_last(objective: nn.Module) -> None:
    """Lay convolution weights out channels last; feature maps follow them."""
    for parameter in objective.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
