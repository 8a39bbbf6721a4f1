"""SimCLR: two views of an image find each other among all others (Chen et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.self_supervised import nt_xent_loss
from distributed_pretrain.methods.encoders import ImageEncoderConfig, build_image_encoder
from distributed_pretrain.methods.objective import Coupled, Method
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.norms.choice import Norm
from distributed_pretrain.models.projection import Projection


class SimclrConfig(Config):
    """SimCLR as LoVT's authors compare with it.

    `projection_norm` is null as in the paper's g(h) = W2 ReLU(W1 h), and in that comparison; its
    authors' code has a batch norm there. `contrastive_chunk_size` bounds the loss's memory, in
    views.
    """

    name: Literal["simclr"] = "simclr"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: None = None
    projection_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 2048
    projection_norm: Norm | None = None
    temperature: PositiveFloat = 0.1
    contrastive_chunk_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class SimclrOutputs:
    """The projections z of both views; those whose `sample_mask` is False mean nothing."""

    first: Float[Tensor, "batch dim"]
    second: Float[Tensor, "batch dim"]
    sample_mask: Bool[Tensor, " batch"]


class Simclr(Method):
    """SimCLR's encoder, projection head and loss (eq 1).

    Samples whose `sample_mask` is False reach no statistic, gradient or loss.
    """

    views = "two_augmentations"

    def __init__(self, config: SimclrConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.projection = Projection(
            image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.projection_dim,
            norm=config.projection_norm,
        )
        self.term_weights = {"nt_xent": 1.0}

    def forward(self, batch: Batch) -> SimclrOutputs:
        """Projections of the average-pooled feature maps.

        All views go through the encoder together, so that batch statistics do not tell the first
        ones from the second.
        """
        assert batch.second_view is not None, "data.views is not two_augmentations"
        views = torch.cat([batch.images, batch.second_view])
        view_mask = torch.cat([batch.sample_mask, batch.sample_mask])
        pooled = self.image_encoder(views, view_mask).mean(dim=(2, 3))
        first, second = self.projection(pooled, view_mask).chunk(2)
        return SimclrOutputs(first=first, second=second, sample_mask=batch.sample_mask)

    def coupled(self, outputs: SimclrOutputs) -> Coupled:
        """The projections of both views."""
        return Coupled(
            rows={
                "first": outputs.first,
                "second": outputs.second,
                "sample_mask": outputs.sample_mask,
            },
            shared={},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`nt_xent`, with the views of all ranks as negatives."""
        term = nt_xent_loss(
            coupled.rows["first"],
            coupled.rows["second"],
            temperature=self.config.temperature,
            chunk_size=self.config.contrastive_chunk_size,
            sample_mask=coupled.rows["sample_mask"],
        )
        return {"nt_xent": term}


def build_simclr(config: SimclrConfig) -> Simclr:
    """SimCLR as `config` describes it; InputError for an encoder that cannot be made."""
    return Simclr(config, build_image_encoder(config.image_encoder))
