"""An encoder with a head on its maps: frozen, or trained with it after a warm-up of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.downstream.heads.pyramid import PyramidHead
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.models.image_encoder import ImageEncoder, RealRows, real_rows
from distributed_pretrain.models.norms.maps import exchange_batch_norms

_IMAGE = "image"


@dataclass(frozen=True)
class WarmUp:
    """For how many steps, and at what learning rate, the head learns alone.

    With `norms_wait_for_epoch` the encoder then learns, but its batch norms keep their statistics
    until the next epoch begins.
    """

    steps: int
    learning_rate: float
    norms_wait_for_epoch: bool = False


class OnEncoder(Objective):
    """What heads on an encoder share.

    A `frozen` encoder keeps its weights and running statistics. One that is trained keeps them
    during the `warm_up`, and then learns with the head, its batch norms in training from the first
    step on, or as `warm_up` says. The head's batch norms are those of the whole batch on any number
    of ranks.
    """

    warm_up_epoch: Tensor

    def __init__(
        self,
        image_encoder: ImageEncoder,
        head: PyramidHead,
        *,
        frozen: bool,
        warm_up: WarmUp | None = None,
    ) -> None:
        super().__init__()
        self.frozen, self.warm_up = frozen, warm_up
        self.image_encoder = image_encoder.requires_grad_(not frozen)
        exchange_batch_norms(head, "sync")
        self.head = head
        self.needs = head.needs
        self._holds_still = frozen or warm_up is not None
        self._norms_wait = False
        if warm_up is not None and warm_up.norms_wait_for_epoch:
            # Of the last step of the warm-up: a checkpoint keeps it, for a start after that.
            self.register_buffer("warm_up_epoch", torch.tensor([-1]))
            self._warm_up_epoch: int | None = None

    def train(self, mode: bool = True) -> Self:
        """The head's mode; an encoder that holds still, or its norms do, is in evaluation."""
        super().train(mode)
        if self._holds_still or self._norms_wait:
            self.image_encoder.eval()
        return self

    def start_step(self, *, epoch: int, step: int = 0) -> None:
        """Begin to train the encoder when the head has warmed up."""
        if not self.frozen:
            self._holds_still = self._warms_up(step)
            self._norms_wait = self._waits(epoch)
            self.train(self.training)

    def learning_rate(self, step: int, scheduled: float) -> float:
        """That of the warm-up while it lasts."""
        if self.warm_up is not None and self._warms_up(step):
            return self.warm_up.learning_rate
        return scheduled

    def after_backward(self) -> None:
        """During the warm-up the encoder's gradients, zeros, go: an update would decay weights."""
        if self._holds_still and not self.frozen:
            for parameter in self.image_encoder.parameters():
                parameter.grad = None

    def features_of(self, batch: Batch) -> dict[str, Tensor]:
        """What a frozen encoder makes of the batch, for `Batch.features`."""
        real = real_rows(batch.images, batch.encoded_mask)
        with real.groups:
            maps = self._encode(real.select(batch.images))
        return {str(number): real.in_batch(each) for number, each in enumerate(maps)} | (
            {_IMAGE: batch.images} if self.needs.image else {}
        )

    def predict(self, batch: Batch) -> tuple[Any, RealRows]:
        """What the head makes of the real samples, and their place in the batch."""
        real = real_rows(batch.images, batch.encoded_mask)
        with real.groups:
            if batch.features is None:
                images = batch.images
                maps = self._encode(real.select(images))
            else:
                kept = dict(batch.features)
                images = kept.pop(_IMAGE, batch.images)
                maps = [real.select(each) for each in kept.values()]
            if self.needs.image:
                maps = [real.select(images).expand(-1, 3, -1, -1), *maps]
            return self.head(maps), real

    def _encode(self, images: Tensor) -> list[Tensor]:
        pixels, trunk = images.expand(-1, 3, -1, -1), self.image_encoder.backbone
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._holds_still):
            if self.needs.stages:
                every = trunk.stages(pixels)
                maps = [every[number] for number in self.needs.stages]
            else:
                maps = [trunk(pixels)]
        if self._holds_still and not self.frozen and torch.is_grad_enabled():
            # DDP waits for a gradient of every parameter that will be trained.
            nothing = sum(each.flatten()[0] * 0 for each in self.image_encoder.parameters())
            maps[-1] = maps[-1] + nothing
        return maps

    def _waits(self, epoch: int) -> bool:
        """Whether the batch norms still keep their statistics in this epoch."""
        if self.warm_up is None or not self.warm_up.norms_wait_for_epoch:
            return False
        if self._holds_still:
            self._warm_up_epoch = epoch
            self.warm_up_epoch.fill_(epoch)
        elif self._warm_up_epoch is None:
            self._warm_up_epoch = int(self.warm_up_epoch)
        return epoch <= self._warm_up_epoch

    def _warms_up(self, step: int) -> bool:
        return self.warm_up is not None and step < self.warm_up.steps
