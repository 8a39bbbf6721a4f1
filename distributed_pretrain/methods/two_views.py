"""What methods share that learn from two augmentations of an image, without reports."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Method, Outputs
from distributed_pretrain.methods.settings import TwoViewsConfig
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class TwoViewsOutputs(Outputs):
    """The projections z of both views."""

    first: Float[Tensor, "batch dim"]
    second: Float[Tensor, "batch dim"]


class TwoViewsMethod(Method):
    """An image encoder, and what its views go through."""

    config: TwoViewsConfig

    def __init__(self, config: TwoViewsConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder

    def head(self, input_dim: int) -> Projection:
        """A new projection, of the sizes that the settings say."""
        return Projection(
            input_dim,
            hidden_dim=self.config.projection_hidden_dim,
            output_dim=self.config.projection_dim,
            norm=self.config.projection_norm,
        )

    def views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images of both views."""
        assert batch.second_view is not None, "data.views is not two_augmentations"
        return batch.images, batch.second_view.images

    def project_views(self, encoder: nn.Module, head: nn.Module, batch: Batch) -> list[Tensor]:
        """The projections of both views, by the student or by a teacher.

        Views go through one after the other, as in the code of BYOL's and PixPro's authors: batch
        statistics are those of one view of every image.
        """
        maps = (encoder(each, batch.encoded_mask) for each in self.views(batch))
        return [self.project(head, each, batch.sample_mask) for each in maps]

    def project(self, projection: nn.Module, last_map: Tensor, sample_mask: Tensor) -> Tensor:
        """The projection of feature maps, by default of their means."""
        projected: Tensor = projection(last_map.mean(dim=(2, 3)), sample_mask)
        return projected
