"""Losses multiplied for fp16, whose range gradients would fall below."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LARGEST, FIRST = 2.0**24, 2.0**16
# At it a gradient that is not finite is none for want of range.
LEAST = 1.0
GROWS_AFTER_UPDATES = 2000


class LossScale:
    """The factor of losses, which no gradient that an update sees has any more.

    Halved with each step that is skipped, doubled after 2,000 updates in a row, within 1 and 2^24
    (Micikevicius et al., arXiv:1710.03740). As torch's GradScaler, but that all of it stays on the
    device: nobody waits to know whether a step was skipped.
    """

    def __init__(self, device: torch.device) -> None:
        self.factor: Float[Tensor, ""] = torch.full((), FIRST, device=device)
        self._updates = torch.zeros((), device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """What to walk backward from in place of `loss`."""
        return loss.float() * self.factor

    def unscaled(self, gradient: Tensor) -> Tensor:
        """A gradient of a scaled loss as that of the loss, in float32."""
        return gradient.float() / self.factor

    @torch.no_grad()
    def unscale_(self, gradients: Iterable[Tensor]) -> None:
        """The same of many, in place."""
        torch._foreach_mul_(list(gradients), 1 / self.factor)

    @torch.no_grad()
    def update(self, skip: Bool[Tensor, ""]) -> None:
        """Move by whether the step was skipped."""
        updates = torch.where(skip, 0.0, self._updates + 1)
        grows = updates >= GROWS_AFTER_UPDATES
        moved = torch.where(skip, self.factor / 2, torch.where(grows, self.factor * 2, self.factor))
        self.factor.copy_(moved.clamp(LEAST, LARGEST))
        self._updates.copy_(torch.where(grows, 0.0, updates))

    def numbers(self) -> Float[Tensor, "numbers=2"]:
        """The factor, and the updates since it moved: what `set` takes."""
        return torch.stack([self.factor, self._updates]).double()

    def set(self, factor: float, updates: int) -> None:
        """Go on from these."""
        self.factor.fill_(factor)
        self._updates.fill_(updates)
