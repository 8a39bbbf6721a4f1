"""What GLoRIA and LIMITR share: regions of stretched images meet the words of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch, ReportTokens, text_ids
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.external import external_loss, gather_tokens
from distributed_pretrain.losses.precision import unit_vectors
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast
from distributed_pretrain.methods.image_text import (
    Heat,
    ImageEmbeddings,
    ImageTextMethod,
    ReportEmbeddings,
    cosine_map,
    of_real_samples,
)
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.methods.words.settings import WordsConfig
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import ImageEncoder, check_upsampling
from distributed_pretrain.models.pooling import mean_of_tokens, sum_word_pieces
from distributed_pretrain.models.report_encoder import ReportEncoder
from distributed_pretrain.ranks import gather_numbers, world_size

# Bounds the memory of their products with all regions.
_WORDS_AT_A_TIME = 512


class WordsMethod(ImageTextMethod):
    """Encoders and heads, and the losses between samples.

    The local parts of a report are its words, CLS first; padded ones reach no statistic, gradient
    or loss. The external loss is a contrasted term in either case. With local negatives it compares
    the samples of one rank with each other, all of the rank's share of a global batch: gradient
    caching then keeps what the profile promises, that micro-batches do not change the loss, while
    the number of ranks does. With global ones N ranks compare N times as many pairs each.
    """

    config: WordsConfig
    compares_local = True

    def __init__(
        self, config: WordsConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        check_upsampling(image_encoder, config.upsample_px)
        self.upsample_px = config.upsample_px
        self.heads = TwoLevelHeads(image_encoder, report_encoder.dim)

    def contrasted(self, outputs: Any) -> Contrasted:
        """Images, regions, reports and words."""
        rows, counts = super().contrasted(outputs).rows, {}
        rows["regions"] = outputs.images.regions.flatten(1, 2)
        # As many columns as tokens less one: the same for all micro-batches of a batch.
        rows["words"] = outputs.reports.local
        rows["word_mask"] = outputs.reports.local_mask
        if outputs.reports.local_ids is not None:
            rows["word_ids"] = outputs.reports.local_ids
        if outputs.reports.local_counts:
            counts["word_counts"] = outputs.reports.local_counts
        return Contrasted(rows, counts=counts)

    def set_terms(self, weights: dict[str, float]) -> None:
        """Take these terms, of which `global` alone reads no words, and `pair` where it counts."""
        if self.config.pair_weight:
            weights["pair"] = self.config.pair_weight
        self.term_weights = weights

    def pair_term(
        self,
        frontal_regions: Tensor,
        words: Tensor,
        word_mask: Tensor,
        word_ids: Tensor | None,
        sample_mask: Tensor,
    ) -> dict[str, Tensor]:
        """`pair`, where it counts. CLS is no word that could be anywhere."""
        if word_ids is None:
            return {}
        assert self.max_tokens is not None
        term = sentence_region_contrast(
            words[:, 1:],
            frontal_regions,
            sentence_mask=word_mask[:, 1:],
            sentence_ids=word_ids[:, 1:],
            most_sentences=self.max_tokens,
            temperature=self.config.pair_temperature,
            chunk_size=_WORDS_AT_A_TIME,
            sample_mask=sample_mask,
            gather=self.config.external_negatives == "global",
        )
        return {"pair": term}

    def compared_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """The mean cosine of a phrase's words to a region, which `pair` compares."""
        real = phrases.local_mask[:, 1:]
        return cosine_map(unit_vectors(phrases.local[:, 1:], real).sum(dim=1), images)

    def global_term(self, image: Tensor, report: Tensor, sample_mask: Tensor) -> Tensor:
        """The contrast of whole images and whole reports, both directions added."""
        return 2 * global_contrastive_loss(
            image,
            report,
            temperature=self.config.temperature,
            image_to_report_weight=0.5,
            sample_mask=sample_mask,
        )

    def compared_words(
        self, words: Tensor, word_mask: Tensor, word_counts: Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Sequence[int] | None]:
        """The words that this rank's images are compared with: its own, or those of all ranks.

        With their numbers, where the host knows them: it counts its own words, and waits for the
        device once to be told those of the other ranks, by which pairs are put into blocks.
        """
        if self.config.external_negatives == "local" or world_size() == 1:
            return words, word_mask, word_counts
        own = () if word_counts is None else word_counts
        of_ranks = gather_numbers([words.shape[1], *own], words.device)
        longest = max(columns for columns, *_ in of_ranks)
        of_all = [count for _, *counts in of_ranks for count in counts]
        words_of_all = gather_tokens(words, longest)
        return words_of_all, gather_tokens(word_mask, longest), of_all or None

    def external_term(self, similarity: Tensor, sample_mask: Tensor) -> Tensor:
        """The contrast by a similarity of this rank's images to the reports of `compared_words`."""
        return external_loss(
            similarity,
            temperature=self.config.temperature,
            sample_mask=sample_mask,
            gather=self.config.external_negatives == "global",
        )

    def local_counts(self, batch: Batch) -> tuple[int, ...]:
        """CLS, and the words that tokenizing has counted."""
        known = zip(batch.report.words, batch.real, strict=False)
        return tuple((1 + words) * real for words, real in known)

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Reports and their words, CLS first.

        A token is the sum of its hidden states in the `last_layers` layers, a word the sum of its
        pieces; SEP is no word. Padded words are zeros; there are as many columns as tokens less
        one, whatever the reports say. A report is the mean of its real tokens, CLS and SEP among
        them. The authors divide the same sum by the padded length, which no cosine sees. Raises
        InputError when there are fewer layers.
        """
        token_mask, word_index = report.token_mask, report.word_index
        tokens = self.report_encoder.embed_tokens(
            report.token_ids,
            token_mask,
            last_layers=self.config.last_layers,
            packing=report.packing,
        )
        columns = token_mask.shape[1]
        is_first = torch.arange(columns, device=token_mask.device) == 0
        with_first = torch.where(word_index >= 0, word_index + 1, -1)
        with_first = torch.where(is_first & token_mask, 0, with_first)
        words, word_mask = sum_word_pieces(tokens, with_first, words=columns - 1)
        return ReportEmbeddings(
            report=mean_of_tokens(tokens, token_mask),
            local=as_factors(words),
            local_mask=of_real_samples(word_mask, sample_mask),
            local_ids=text_ids(report.token_ids, with_first, columns - 1)
            if self.config.pair_weight
            else None,
        )
