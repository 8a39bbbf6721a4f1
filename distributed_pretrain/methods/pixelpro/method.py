"""PixPro (LoVT's PixelPro): cells of two views that show one place agree (Xie et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.pixel_propagation import (
    images_with_matches,
    matching_regions,
    pixel_propagation_by_image,
)
from distributed_pretrain.methods.objective import Contrasted, Method, Outputs
from distributed_pretrain.methods.pixelpro.settings import PixelproConfig
from distributed_pretrain.models.ema import EmaTeacher, ema_momentum
from distributed_pretrain.models.heads import PixelPropagation, Projection
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.ranks import mean_over_samples


@dataclass(frozen=True, kw_only=True)
class PixelproOutputs(Outputs):
    """The student's propagated regions y and the teacher's projected ones x, of both views.

    `matches` says which regions of the first view (rows) lie where those of the second do. Targets
    carry no gradient.
    """

    first_propagated: Float[Tensor, "batch regions dim"]
    second_propagated: Float[Tensor, "batch regions dim"]
    first_target: Float[Tensor, "batch regions dim"]
    second_target: Float[Tensor, "batch regions dim"]
    matches: Bool[Tensor, "batch regions regions"]


class Pixelpro(Method):
    """PixPro's student, teacher, propagation module and loss (eqs 3-6).

    The teacher is a moving average of encoder and projection; the encoder handed on is the
    student's.
    """

    def __init__(self, config: PixelproConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.region_projection = Projection(
            image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.projection_dim,
            norm=config.projection_norm,
        )
        self.propagation = PixelPropagation(
            config.projection_dim, sharpness=config.propagation_sharpness
        )
        self.encoder_teacher = EmaTeacher(self.image_encoder)
        self.projection_teacher = EmaTeacher(self.region_projection)
        self.term_weights = {"pixel_propagation": 1.0}

    def forward(self, batch: Batch) -> PixelproOutputs:
        """Propagated regions, targets and matches of both views.

        Views go through one after the other, as in the authors' code: batch statistics are those of
        one view of every image.
        """
        assert batch.second_view is not None, "data.views is not two_augmentations"
        mask = batch.sample_mask
        views = (batch.images, batch.second_view.images)
        first, second = (
            _project_regions(self.image_encoder, self.region_projection, v, mask) for v in views
        )
        first_target, second_target = (
            _project_regions(self.encoder_teacher, self.projection_teacher, v, mask) for v in views
        )
        return PixelproOutputs(
            first_propagated=self.propagation(first.flatten(1, 2)),
            second_propagated=self.propagation(second.flatten(1, 2)),
            first_target=first_target.flatten(1, 2),
            second_target=second_target.flatten(1, 2),
            matches=matching_regions(
                *batch.second_view.view_to_image.unbind(dim=1),
                grid=(first.shape[1], first.shape[2]),
                threshold=self.config.match_threshold,
            ),
            sample_mask=mask,
        )

    def contrasted(self, outputs: PixelproOutputs) -> Contrasted:
        """Each image's own loss, and whether it has one.

        How many images have matches differs between micro-batches and ranks: their mean is one
        over the whole batch.
        """
        by_image = pixel_propagation_by_image(
            outputs.first_propagated,
            outputs.second_propagated,
            outputs.first_target,
            outputs.second_target,
            outputs.matches,
            sample_mask=outputs.sample_mask,
        )
        has_matches = images_with_matches(outputs.matches, sample_mask=outputs.sample_mask)
        return Contrasted(rows={"by_image": by_image, "has_matches": has_matches})

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`pixel_propagation`, from -2 to 2: the mean over all images with matches."""
        term = mean_over_samples(contrasted.rows["by_image"], contrasted.rows["has_matches"])
        return {"pixel_propagation": term}

    def after_update(self, *, progress: float) -> None:
        """Let the teacher follow the student."""
        momentum = ema_momentum(progress, start=self.config.teacher_momentum)
        self.encoder_teacher.follow(self.image_encoder, momentum)
        self.projection_teacher.follow(self.region_projection, momentum)


def _project_regions(
    encoder: nn.Module, projection: nn.Module, images: Tensor, sample_mask: Tensor
) -> Float[Tensor, "batch rows columns dim"]:
    """The projection of every cell of the feature map, of the student or of the teacher."""
    cells = encoder(images, sample_mask).movedim(1, -1)
    projected: Tensor = projection(cells, sample_mask[:, None, None].expand(cells.shape[:3]))
    return projected
