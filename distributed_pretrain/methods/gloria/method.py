"""GLoRIA: words attend to the regions of an image (Huang et al., ICCV 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from data_shards.profiles import Config
from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.pairwise.gloria_attention import gloria_phrase_attention
from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.external import external_loss, gather_tokens
from distributed_pretrain.methods.encoders import (
    ImageEncoderConfig,
    PretrainedReportEncoderConfig,
    ReportEncoderConfig,
    build_image_encoder,
    build_report_encoder,
)
from distributed_pretrain.methods.objective import (
    Coupled,
    ImageEmbeddings,
    JointOutputs,
    JointSpace,
    Method,
    ReportEmbeddings,
)
from distributed_pretrain.models.global_and_local import (
    TwoLevelHeads,
    check_upsampling,
    embed_words,
    upsampled,
)
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.image_tokens import encode_image_tokens
from distributed_pretrain.models.report_encoder import ReportEncoder

# log Σ_j e^{T c_j} / T is the largest c_j but for ln(W) / T: 0.005 for 97 words.
_NEARLY_MAXIMUM = 1000.0


class GloriaConfig(Config):
    """The paper's settings; the joint space has the dimensions of the report encoder (768).

    `upsample_px` is the side to which images are stretched, null for none; `last_layers` are the
    report encoder's layers whose hidden states are added. `temperature` divides the global cosine
    and the local similarity alike (the paper's 10 is its inverse). `external_negatives` are of the
    own rank (`local`), whatever the accumulation, or of all ranks (`global`), for which words
    are exchanged (see `gather_tokens` for the bytes). `chunk_size` pairs are compared at a
    time (null: by the memory there is).
    """

    name: Literal["gloria"] = "gloria"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    upsample_px: PositiveInt | None = 299
    last_layers: PositiveInt = 4
    temperature: PositiveFloat = 0.1
    attention_temperature: PositiveFloat = 4.0
    word_temperature: PositiveFloat = 5.0
    global_weight: NonNegativeFloat = 1.0
    local_weight: NonNegativeFloat = 1.0
    external_negatives: Literal["local", "global"] = "local"
    chunk_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class GloriaOutputs(JointOutputs):
    """All that GLoRIA's losses need; the parts of a report are its words, CLS first."""

    sample_mask: Bool[Tensor, " batch"]


class Gloria(Method, JointSpace):
    """GLoRIA's encoders and its two losses, both between samples.

    Samples whose `sample_mask` is False reach no statistic, gradient or loss, and neither do
    padded words.
    """

    compares_parts = True

    def __init__(
        self, config: GloriaConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.report_encoder = report_encoder
        self.max_tokens = report_encoder.max_tokens
        self.term_weights = {"global": config.global_weight, "local": config.local_weight}
        check_upsampling(image_encoder, config.upsample_px)
        self.heads = TwoLevelHeads(image_encoder, report_encoder.dim)

    def forward(self, batch: Batch) -> GloriaOutputs:
        """Every representation of `batch`."""
        return GloriaOutputs(
            images=self.embed_images(batch),
            reports=self._embed_reports(batch.report, batch.sample_mask),
            sample_mask=batch.sample_mask,
        )

    def coupled(self, outputs: GloriaOutputs) -> Coupled:
        """Images, regions, reports and words."""
        return Coupled(
            rows={
                "image": outputs.images.image,
                "report": outputs.reports.report,
                "regions": outputs.images.regions.flatten(1, 2),
                # As many columns as tokens less one: the same for all micro-batches of a batch.
                "words": outputs.reports.parts,
                "word_mask": outputs.reports.part_mask,
                "sample_mask": outputs.sample_mask,
            },
            shared={},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`global` and `local`, each with both directions added."""
        config, rows = self.config, coupled.rows
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
        tokens = encode_image_tokens(
            self.image_encoder,
            upsampled(batch.images, self.config.upsample_px),
            batch.sample_mask,
        )
        image, regions = self.heads(tokens)
        return ImageEmbeddings(image=image, regions=as_factors(regions))

    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Reports and their words."""
        return self._embed_reports(report, None)

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
            reports.parts,
            reports.part_mask,
            attention_temperature=self.config.attention_temperature,
            word_temperature=_NEARLY_MAXIMUM,
            chunk_size=self.config.chunk_size,
        )
        local = scaled_maximum * (self.config.word_temperature / _NEARLY_MAXIMUM)
        return (super().similarity(images, reports) + local) / 2

    def phrase_heat(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """The attention of the phrase's words over the regions, as the paper pictures it.

        Words and regions meet by it alone: no loss compares a phrase with a single region.
        """
        attention = gloria_phrase_attention(
            images.regions.flatten(1, 2),
            phrases.parts,
            phrases.part_mask,
            attention_temperature=self.config.attention_temperature,
        )
        return attention.view(images.regions.shape[:3])

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map, of the upsampled images."""
        last_map: Tensor = self.image_encoder(upsampled(images, self.config.upsample_px))
        return last_map

    def _embed_reports(self, report: ReportTokens, sample_mask: Tensor | None) -> ReportEmbeddings:
        whole, words, word_mask = embed_words(
            self.report_encoder,
            report.token_ids,
            report.token_mask,
            report.word_index,
            last_layers=self.config.last_layers,
        )
        if sample_mask is not None:
            word_mask = word_mask & sample_mask[:, None]
        return ReportEmbeddings(report=whole, parts=as_factors(words), part_mask=word_mask)


def build_gloria(config: GloriaConfig, *, vocabulary_size: int) -> Gloria:
    """GLoRIA as `config` describes it, for a tokenizer of `vocabulary_size` tokens.

    Raises InputError for encoders that do not exist, cannot be loaded, or do not fit the method.
    """
    return Gloria(
        config,
        build_image_encoder(config.image_encoder),
        build_report_encoder(config.report_encoder, vocabulary_size),
    )
