"""BYOL: each view predicts what a slower teacher makes of the other (Grill et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.self_supervised import byol_loss
from distributed_pretrain.methods.byol.settings import ByolConfig
from distributed_pretrain.methods.objective import Outputs
from distributed_pretrain.methods.two_views import TwoViewsMethod
from distributed_pretrain.models.ema import EmaTeacher, ema_momentum
from distributed_pretrain.models.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class ByolOutputs(Outputs):
    """The student's predictions q and the teacher's projections z of both views.

    Targets carry no gradient.
    """

    first_prediction: Float[Tensor, "batch dim"]
    second_prediction: Float[Tensor, "batch dim"]
    first_target: Float[Tensor, "batch dim"]
    second_target: Float[Tensor, "batch dim"]


class Byol(TwoViewsMethod):
    """BYOL's student, teacher, predictor and loss (eq 2).

    The teacher is a moving average of encoder and projection; the encoder handed on is the
    student's.
    """

    config: ByolConfig
    contrasts_samples = False

    def __init__(self, config: ByolConfig, image_encoder: ImageEncoder) -> None:
        super().__init__(config, image_encoder)
        self.projection = self.head(image_encoder.channels)
        self.predictor = self.head(config.projection_dim)
        self.encoder_teacher = EmaTeacher(self.image_encoder)
        self.projection_teacher = EmaTeacher(self.projection)
        self.term_weights = {"byol": 1.0}

    def forward(self, batch: Batch) -> ByolOutputs:
        """Predictions and targets of both views."""
        mask = batch.sample_mask
        first, second = self.project_views(self.image_encoder, self.projection, batch)
        targets = self.project_views(self.encoder_teacher, self.projection_teacher, batch)
        return ByolOutputs(
            first_prediction=self.predictor(first, mask),
            second_prediction=self.predictor(second, mask),
            first_target=targets[0],
            second_target=targets[1],
            sample_mask=mask,
        )

    def sample_terms(self, outputs: ByolOutputs) -> dict[str, Tensor]:
        """`byol`, from 0 to 8; equal outputs for all images would minimise it too."""
        return {"byol": byol_loss(**vars(outputs))}

    def after_update(self, *, progress: float, made: Bool[Tensor, ""] | None = None) -> None:
        """Let the teacher follow the student."""
        momentum = ema_momentum(progress, start=self.config.teacher_momentum)
        self.encoder_teacher.follow(self.image_encoder, momentum, made)
        self.projection_teacher.follow(self.projection, momentum, made)
