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
