"""PixPro (LoVT's PixelPro): cells of two views that show one place agree (Xie et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.pixel_propagation import (
    matching_regions,
    pixel_propagation_by_image,
)
from distributed_pretrain.methods.objective import Contrasted, Outputs
from distributed_pretrain.methods.pixelpro.settings import PixelproConfig
from distributed_pretrain.methods.two_views import TwoViewsMethod
from distributed_pretrain.models.ema import EmaTeacher, ema_momentum
from distributed_pretrain.models.heads import PixelPropagation
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


class Pixelpro(TwoViewsMethod):
    """PixPro's student, teacher, propagation module and loss (eqs 3-6).

    The teacher is a moving average of encoder and projection; the encoder handed on is the
    student's.
    """

    config: PixelproConfig

    def __init__(self, config: PixelproConfig, image_encoder: ImageEncoder) -> None:
        super().__init__(config, image_encoder)
        self.region_projection = self.head(image_encoder.channels)
        self.propagation = PixelPropagation(
            config.projection_dim, sharpness=config.propagation_sharpness
        )
        self.encoder_teacher = EmaTeacher(self.image_encoder)
        self.projection_teacher = EmaTeacher(self.region_projection)
        self.term_weights = {"pixel_propagation": 1.0}

    def forward(self, batch: Batch) -> PixelproOutputs:
        """Propagated regions, targets and matches of both views."""
        assert batch.second_view is not None
        first, second = self.project_views(self.image_encoder, self.region_projection, batch)
        targets = self.project_views(self.encoder_teacher, self.projection_teacher, batch)
        return PixelproOutputs(
            first_propagated=self.propagation(first.flatten(1, 2)),
            second_propagated=self.propagation(second.flatten(1, 2)),
            first_target=targets[0].flatten(1, 2),
            second_target=targets[1].flatten(1, 2),
            matches=matching_regions(
                *batch.second_view.view_to_image.unbind(dim=1),
                grid=(first.shape[1], first.shape[2]),
                threshold=self.config.match_threshold,
            ),
            sample_mask=batch.sample_mask,
        )

    def project(self, projection: nn.Module, last_map: Tensor, sample_mask: Tensor) -> Tensor:
        """The projection of every cell of the feature maps (B rows columns D)."""
        cells = last_map.movedim(1, -1)
        projected: Tensor = projection(cells, sample_mask[:, None, None].expand(cells.shape[:3]))
        return projected

    def contrasted(self, outputs: PixelproOutputs) -> Contrasted:
        """Each image's own loss, and whether it has one.

        How many images have matches differs between micro-batches and ranks: their mean is one
        over the whole batch.
        """
        has_matches = outputs.matches.flatten(1).any(dim=1) & outputs.sample_mask
        by_image = pixel_propagation_by_image(**vars(outputs))
        return Contrasted(rows={"by_image": by_image, "has_matches": has_matches})

    def batch_terms(self, by_image: Tensor, has_matches: Tensor) -> dict[str, Tensor]:
        """`pixel_propagation`, from -2 to 2: the mean over all images with matches."""
        return {"pixel_propagation": mean_over_samples(by_image, has_matches)}

    def after_update(self, *, progress: float, made: Bool[Tensor, ""] | None = None) -> None:
        """Let the teacher follow the student."""
        momentum = ema_momentum(progress, start=self.config.teacher_momentum)
        self.encoder_teacher.follow(self.image_encoder, momentum, made)
        self.projection_teacher.follow(self.region_projection, momentum, made)
