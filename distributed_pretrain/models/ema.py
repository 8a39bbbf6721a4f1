"""A teacher that follows its student as an exponential moving average (BYOL, PixPro)."""

from __future__ import annotations

from copy import deepcopy
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn


class EmaTeacher(nn.Module):
    """A copy of `student`, in `network`, whose weights are averages of the student's.

    Call it like the student: outputs carry no gradient. `follow` is to be called once after each
    optimizer step. Like its student it normalises with batch statistics in training
    mode, as in BYOL and PixPro.

    Each rank computes the same averages of the same students, in place, so that a compiled forward
    sees the new ones. ZeRO stage 3 cuts weights up and has nothing here to average: use DDP or
    stages 1 and 2.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the averaged network makes of `inputs`, without gradient."""
        return self.network(*inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float, made: Tensor | None = None) -> None:
        """Move to `momentum` x own weights + (1 - `momentum`) x the student's, in place.

        Buffers, the running statistics, become copies of the student's. Where `made` is False the
        student was not updated, and the weights stay.
        """
        own: list[Tensor] = list(self.network.parameters())
        others: list[Tensor] = list(student.parameters())
        assert [p.shape for p in own] == [p.shape for p in others], (
            "not the student of this teacher"
        )
        assert all(p.numel() for p in own), "weights that ZeRO 3 has cut up cannot be averaged"
        # own + (1 - m) (other - own).
        made = torch.ones((), dtype=torch.bool, device=own[0].device) if made is None else made
        weight = made.to(own[0].dtype) * (1 - momentum)
        torch._foreach_lerp_(own, others, [weight] * len(own))
        for buffer, other in zip(self.network.buffers(), student.buffers(), strict=True):
            buffer.copy_(other)


def ema_momentum(progress: float, *, start: float = 0.996) -> float:
    """1 - (1 - `start`) (cos(π progress) + 1) / 2: from `start` at 0 up to 1 at progress 1.

    `progress` is the share k / K of all updates made before this one. BYOL starts at 0.996, PixPro
    at 0.99.
    """
    return 1 - (1 - start) * (cos(pi * progress) + 1) / 2
