"""ConVIRT and CLIP*: whole images are contrasted with whole reports."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool
from torch import Tensor

from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.methods.global_contrast.settings import GlobalContrastConfig
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
)
from distributed_pretrain.models.heads import GlobalImageHead, Projection
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.pooling import max_of_tokens
from distributed_pretrain.models.report_encoder import ReportEncoder


class GlobalContrast(ImageTextMethod):
    """The image's regions pooled, the report's highest tokens, each projected, and one loss.

    `norm` and `pooling_heads` are those of the heads, None for none and for the regions' mean.
    """

    def __init__(
        self,
        config: GlobalContrastConfig,
        image_encoder: ImageEncoder,
        report_encoder: ReportEncoder,
        *,
        norm: Norm | None,
        pooling_heads: int | None,
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        self.term_weights = {"global": 1.0}
        hidden, dim = config.projection_hidden_dim, config.embedding_dim
        self.image_head = GlobalImageHead(
            image_encoder.channels,
            hidden_dim=hidden,
            output_dim=dim,
            norm=norm,
            pooling_heads=pooling_heads,
        )
        self.report_projection = Projection(
            report_encoder.dim, hidden_dim=hidden, output_dim=dim, norm=norm
        )

    def forward(self, batch: Batch) -> ImageTextOutputs:
        """The embeddings; regions have no dimensions, since no loss reads them."""
        return ImageTextOutputs(
            images=self._embedded(batch, lambda last_map: last_map.permute(0, 2, 3, 1)[..., :0]),
            reports=self.embed_reports(batch.report, batch.sample_mask),
            sample_mask=batch.sample_mask,
        )

    def batch_terms(self, image: Tensor, report: Tensor, sample_mask: Tensor) -> dict[str, Tensor]:
        """`global`: LoVT's eqs 3-5 and ConVIRT's 2-4, with λ = `image_to_report_weight`."""
        global_term = global_contrastive_loss(
            image,
            report,
            temperature=self.config.temperature,
            image_to_report_weight=self.config.image_to_report_weight,
            chunk_size=self.config.chunk_size,
            sample_mask=sample_mask,
        )
        return {"global": global_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected images, and each region as if it were the image."""
        return self._embedded(batch, self.image_head.embed_regions)

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Projected reports; the report is its only local part."""
        sentences, sentence_mask = self.encode_sentences(report, sample_mask)
        # The maximum of the sentences' maxima is that of all tokens.
        pooled = max_of_tokens(sentences, sentence_mask)
        embedded = self.report_projection(pooled, sample_mask)
        return ReportEmbeddings(
            report=embedded,
            local=embedded[:, None],
            local_mask=sentence_mask.any(dim=1, keepdim=True),
        )

    def _embedded(self, batch: Batch, regions_of: Callable[[Tensor], Tensor]) -> ImageEmbeddings:
        last_map = self.image_encoder(batch.images, batch.encoded_mask)
        image, weights = self.image_head(last_map, batch.sample_mask)
        regions = regions_of(last_map)
        return ImageEmbeddings(image=image, regions=regions, region_weights=weights)
