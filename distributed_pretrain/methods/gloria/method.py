"""GLoRIA: words attend to the regions of an image (Huang et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from distributed_pretrain.alignment.gloria import gloria_phrase_attention, gloria_similarity
from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.methods.image_text import (
    Heat,
    ImageEmbeddings,
    ReportEmbeddings,
    Similarity,
)
from distributed_pretrain.methods.words.method import WordsMethod
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.report_encoder import ReportEncoder

# log Σ_j e^{T c_j} / T is the largest c_j but for ln(W) / T: 0.005 for 97 words.
_NEARLY_MAXIMUM = 1000.0


class Gloria(WordsMethod):
    """GLoRIA's encoders and its two losses, both between samples."""

    config: GloriaConfig
    terms_of_regions = ("local", "pair")

    def __init__(
        self, config: GloriaConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(config, image_encoder, report_encoder)
        self._similarity = partial(
            gloria_similarity,
            attention_temperature=config.attention_temperature,
            chunk_size=config.chunk_size,
        )
        self.set_terms({"global": config.global_weight, "local": config.local_weight})

    def batch_terms(
        self,
        image: Tensor,
        report: Tensor,
        regions: Tensor,
        words: Tensor,
        word_mask: Tensor,
        sample_mask: Tensor,
        word_ids: Tensor | None = None,
        word_counts: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """`global` and `local`, each with both directions added, and `pair` beyond the paper."""
        compared, mask, counts = self.compared_words(words, word_mask, word_counts)
        similarity = self._similarity(
            regions,
            compared,
            mask,
            word_counts=counts,
            word_temperature=self.config.word_temperature,
        )
        return {
            "global": self.global_term(image, report, sample_mask),
            "local": self.external_term(similarity, sample_mask),
            **self.pair_term(regions, words, word_mask, word_ids, sample_mask),
        }

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Images and their regions."""
        tokens = self.image_encoder.tokens(self.upsampled(batch.images), batch.encoded_mask)
        image, regions = self.heads(tokens)
        return ImageEmbeddings(image=image, regions=as_factors(regions))

    def similarity(self, images: ImageEmbeddings, reports: ReportEmbeddings) -> Similarity:
        """The mean of the global cosine and 5 max_j cos(m_j, t_j), as the authors retrieve.

        5 is `word_temperature`. The loss adds up e^{5 cos} over words where retrieval takes the
        largest, which does not grow with the length of a report: training may have seen single
        sentences, and retrieval compares whole reports. The authors standardise for zero-shot
        classification alone.
        """
        scaled_maximum = self._similarity(
            images.regions.flatten(1, 2),
            reports.local,
            reports.local_mask,
            word_temperature=_NEARLY_MAXIMUM,
        )
        local = scaled_maximum * (self.config.word_temperature / _NEARLY_MAXIMUM)
        return (super().similarity(images, reports) + local) / 2

    def grounding_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """The attention of the phrase's words over the regions, as the paper pictures it.

        Words and regions meet by it alone: no loss compares a phrase with a single region, but
        that of `pair_weight`, whose cosine is the answer then.
        """
        if self.config.pair_weight:
            return self.compared_map(phrases, images)
        attention = gloria_phrase_attention(
            images.regions.flatten(1, 2),
            phrases.local,
            phrases.local_mask,
            attention_temperature=self.config.attention_temperature,
        )
        return attention.view(images.regions.shape[:3])
