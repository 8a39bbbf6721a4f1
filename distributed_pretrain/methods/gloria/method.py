"""GLoRIA: words attend to the regions of an image (Huang et al., ICCV 2021)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.alignment.gloria import gloria_phrase_attention, gloria_similarity
from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.external import external_loss, gather_tokens
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
)
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.methods.words import embed_report_words
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import ImageEncoder, check_upsampling, upsampled
from distributed_pretrain.models.report_encoder import ReportEncoder

# log Σ_j e^{T c_j} / T is the largest c_j but for ln(W) / T: 0.005 for 97 words.
_NEARLY_MAXIMUM = 1000.0


class Gloria(ImageTextMethod):
    """GLoRIA's encoders and its two losses, both between samples.

    The local parts of a report are its words, CLS first; padded ones reach no statistic, gradient
    or loss.
    """

    compares_local = True

    def __init__(
        self, config: GloriaConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        self.term_weights = {"global": config.global_weight, "local": config.local_weight}
        check_upsampling(image_encoder, config.upsample_px)
        self.heads = TwoLevelHeads(image_encoder, report_encoder.dim)

    def forward(self, batch: Batch) -> ImageTextOutputs:
        """Every representation of `batch`."""
        return ImageTextOutputs(
            images=self.embed_images(batch),
            reports=self.embed_reports(batch.report, batch.sample_mask),
            sample_mask=batch.sample_mask,
        )

    def contrasted(self, outputs: ImageTextOutputs) -> Contrasted:
        """Images, regions, reports and words."""
        return Contrasted(
            rows={
                "image": outputs.images.image,
                "report": outputs.reports.report,
                "regions": outputs.images.regions.flatten(1, 2),
                # As many columns as tokens less one: the same for all micro-batches of a batch.
                "words": outputs.reports.local,
                "word_mask": outputs.reports.local_mask,
                "sample_mask": outputs.sample_mask,
            }
        )

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`global` and `local`, each with both directions added."""
        config, rows = self.config, contrasted.rows
        global_term = 2 * global_contrastive_loss(
            rows["image"],
            rows["report"],
            temperature=config.temperature,
            image_to_report_weight=0.5,
            sample_mask=rows["sample_mask"],
        )
        gather = config.external_negatives == "global"
        words, word_mask = rows["words"], rows["word_mask"]
        if gather:
            words, word_mask = gather_tokens(words, word_mask)
        local_term = external_loss(
            gloria_similarity(
                rows["regions"],
                words,
                word_mask,
                attention_temperature=config.attention_temperature,
                word_temperature=config.word_temperature,
                chunk_size=config.chunk_size,
            ),
            temperature=config.temperature,
            sample_mask=rows["sample_mask"],
            gather=gather,
        )
        return {"global": global_term, "local": local_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Images and their regions."""
        tokens = self.image_encoder.tokens(
            upsampled(batch.images, self.config.upsample_px), batch.sample_mask
        )
        image, regions = self.heads(tokens)
        return ImageEmbeddings(image=image, regions=as_factors(regions))

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Reports and their words."""
        return embed_report_words(
            self.report_encoder, report, sample_mask, last_layers=self.config.last_layers
        )

    def similarity(
        self, images: ImageEmbeddings, reports: ReportEmbeddings
    ) -> Float[Tensor, "images reports"]:
        """The mean of the global cosine and 5 max_j cos(m_j, t_j), as the authors retrieve.

        5 is `word_temperature`. The loss adds up e^{5 cos} over words where retrieval takes the
        largest, which does not grow with the length of a report: training may have seen single
        sentences, and retrieval compares whole reports. The authors standardise for zero-shot
        classification alone.
        """
        scaled_maximum = gloria_similarity(
            images.regions.flatten(1, 2),
            reports.local,
            reports.local_mask,
            attention_temperature=self.config.attention_temperature,
            word_temperature=_NEARLY_MAXIMUM,
            chunk_size=self.config.chunk_size,
        )
        local = scaled_maximum * (self.config.word_temperature / _NEARLY_MAXIMUM)
        return (super().similarity(images, reports) + local) / 2

    def grounding_map(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """The attention of the phrase's words over the regions, as the paper pictures it.

        Words and regions meet by it alone: no loss compares a phrase with a single region.
        """
        attention = gloria_phrase_attention(
            images.regions.flatten(1, 2),
            phrases.local,
            phrases.local_mask,
            attention_temperature=self.config.attention_temperature,
        )
        return attention.view(images.regions.shape[:3])

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map, of the upsampled images."""
        last_map: Tensor = self.image_encoder(upsampled(images, self.config.upsample_px))
        return last_map
