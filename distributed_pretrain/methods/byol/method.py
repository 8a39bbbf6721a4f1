"""BYOL: each view predicts what a slower teacher makes of the other (Grill et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.self_supervised import byol_loss
from distributed_pretrain.methods.byol.settings import ByolConfig
from distributed_pretrain.methods.objective import Method, Outputs
from distributed_pretrain.models.ema import EmaTeacher, ema_momentum
from distributed_pretrain.models.heads import Projection
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


class Byol(Method):
    """BYOL's student, teacher, predictor and loss (eq 2).

    The teacher is a moving average of encoder and projection; the encoder handed on is the
    student's.
    """

    contrasts_samples = False

    def __init__(self, config: ByolConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.projection = self._head(image_encoder.channels)
        self.predictor = self._head(config.projection_dim)
        self.encoder_teacher = EmaTeacher(self.image_encoder)
        self.projection_teacher = EmaTeacher(self.projection)
        self.term_weights = {"byol": 1.0}

    def forward(self, batch: Batch) -> ByolOutputs:
        """Predictions and targets of both views.

        Views go through one after the other, as in the paper's code: batch statistics are those of
        one view of every image.
        """
        assert batch.second_view is not None, "data.views is not two_augmentations"
        mask = batch.sample_mask
        views = (batch.images, batch.second_view.images)
        first, second = (_project(self.image_encoder, self.projection, v, mask) for v in views)
        first_target, second_target = (
            _project(self.encoder_teacher, self.projection_teacher, v, mask) for v in views
        )
        return ByolOutputs(
            first_prediction=self.predictor(first, mask),
            second_prediction=self.predictor(second, mask),
            first_target=first_target,
            second_target=second_target,
            sample_mask=mask,
        )

    def sample_terms(self, outputs: ByolOutputs) -> dict[str, Tensor]:
        """`byol`, from 0 to 8; equal outputs for all images would minimise it too."""
        term = byol_loss(
            outputs.first_prediction,
            outputs.second_prediction,
            outputs.first_target,
            outputs.second_target,
            sample_mask=outputs.sample_mask,
        )
        return {"byol": term}

    def after_update(self, *, progress: float) -> None:
        """Let the teacher follow the student."""
        momentum = ema_momentum(progress, start=self.config.teacher_momentum)
        self.encoder_teacher.follow(self.image_encoder, momentum)
        self.projection_teacher.follow(self.projection, momentum)

    def _head(self, input_dim: int) -> Projection:
        return Projection(
            input_dim,
            hidden_dim=self.config.projection_hidden_dim,
            output_dim=self.config.projection_dim,
            norm=self.config.projection_norm,
        )


def _project(
    encoder: nn.Module, projection: nn.Module, images: Tensor, sample_mask: Tensor
) -> Tensor:
    """The projection of the average-pooled feature map, of the student or of the teacher."""
    projected: Tensor = projection(encoder(images, sample_mask).mean(dim=(2, 3)), sample_mask)
    return projected
