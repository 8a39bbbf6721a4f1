"""LIMITR's pair similarity: how well an image and a report match, region by word (eqs 1-5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.alignment.pairwise.blocks import (
    SortedRows,
    pair_blocks,
    sorted_by_length,
)
from distributed_pretrain.alignment.pairwise.dropout import PairDropout
from distributed_pretrain.alignment.pairwise.limitr_aggregation import (
    AuthorsWeights,
    LocalAlignments,
    PaperWeights,
    aggregation_of,
)
from distributed_pretrain.alignment.pairwise.limitr_attention import (
    IMAGE_HEAD,
    REPORT_HEAD,
    SHARPNESS,
    attention_logits,
)
from distributed_pretrain.alignment.pairwise.limitr_inputs import PairWork
from distributed_pretrain.alignment.pairwise.limitr_pairs import pair_logits
from distributed_pretrain.alignment.pairwise.memory import Scratch
from distributed_pretrain.alignment.pairwise.products import (
    inverse_lengths,
    masked_softmax,
    product_dtype,
)
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)

# B images (and as many reports, where they are matched), R regions, W words, D dim.

AUTHORS_DROPOUT = 0.4

# What is attended and its product with the tokens; the authors' gates and their gradient. So many
# tensors of every word or region of a block's pairs are there in backward.
_TENSORS_OF_A_BLOCK: dict[Variant, int] = {"paper": 2, "authors": 4}
BLOCK_BYTES = {"cpu": 2**26, "cuda": 2**30}


@dataclass(frozen=True)
class MatchedPairs:
    """What the words and regions of matched pairs attend to, and how much each of them counts.

    Row b is image b with report b. The weights are the aggregation's q, detached, and sum to 1
    over what is real. At padding all four are 0.
    """

    attended_words: Float[Tensor, "batch words dim"]
    attended_regions: Float[Tensor, "batch regions dim"]
    word_weights: Float[Tensor, "batch words"]
    region_weights: Float[Tensor, "batch regions"]


class LimitrSimilarity(nn.Module):
    """Two similarities in (0, 1) of every image with every report.

    `paper` follows the equations: attention is softmax(4 cosine), aggregation a dot-product
    attention of the mean alignment (eqs 4-5, without biases), shared by both directions. `authors`
    follows the public code: raw scores, a softmax over either axis, and a gate of linear layers
    with dropout 0.4 (in training), whose five layers are the whole state.

    `chunk_size` pairs are compared at a time, and once more in backward: any gives the same
    result, and memory grows with it. By default a few on a CPU and some hundred on a GPU, and a
    fixed sum of bytes (224 MiB, 2 GiB) saves backward some of the work.
    """

    def __init__(self, dim: int, variant: Variant = "paper", chunk_size: int | None = None) -> None:
        super().__init__()
        self.variant: Variant = variant
        self.chunk_size = chunk_size
        self.dropout = AUTHORS_DROPOUT if variant == "authors" else 0.0
        if variant == "authors":
            self.local_gate = nn.Linear(dim, dim)
            self.global_gate = nn.Linear(dim, dim)
            self.score = nn.Linear(dim, 1)
        else:
            self.query = nn.Linear(dim, dim, bias=False)
            self.key = nn.Linear(dim, dim, bias=False)
            self.value = nn.Linear(dim, dim, bias=False)
        self.report_head = nn.Linear(dim, 1)
        self.image_head = nn.Linear(dim, 1)

    def forward(
        self,
        regions: Float[Tensor, "images regions dim"],
        words: Float[Tensor, "reports words dim"],
        word_mask: Bool[Tensor, "reports words"],
        region_mask: Bool[Tensor, "images regions"] | None = None,
        *,
        word_counts: Sequence[int] | None = None,
        region_counts: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "images reports"], Float[Tensor, "images reports"]]:
        """`report_side` (each word attends the regions) and `image_side` (the mirror image).

        Rows are images, columns reports; there may be more of one than of the other. Masks are
        True where something is real: padding, NaN included, changes nothing and gets no gradient.
        The products follow autocast, or else the inputs' dtype (never float16); softmaxes, sums
        and the result are in at least float32. Differentiable once. Counts are those of
        `sorted_by_length`.
        """
        products = product_dtype(regions, words)
        with full_precision(regions):
            region_order = SortedRows.all_real(*regions.shape[:2])
            if region_mask is not None:
                region_order = sorted_by_length(region_mask, region_counts)
                region_mask = region_order.sort(region_mask)
                regions = zero_where_padded(region_order.sort(regions), region_mask)
            word_order = sorted_by_length(word_mask, word_counts)
            word_mask = word_order.sort(word_mask)
            words = zero_where_padded(word_order.sort(words), word_mask)
            numbers = max(regions.shape[1], words.shape[1]) * regions.shape[-1]
            work = PairWork(
                blocks=pair_blocks(
                    region_order,
                    word_order,
                    chunk_size=self.chunk_size,
                    bytes_per_pair=_TENSORS_OF_A_BLOCK[self.variant] * numbers * products.itemsize,
                    block_bytes=BLOCK_BYTES[regions.device.type],
                ),
                region_mask=_or_all_real(region_mask, regions),
                word_mask=word_mask,
                product_dtype=products,
                dropout=self._pair_dropout(region_order, word_order, regions.device),
                chunk_size=self.chunk_size,
            )
            logits = pair_logits(regions, words, work, self._weights(regions))
            report_side, image_side = (
                torch.sigmoid(region_order.unsort(word_order.unsort(logit, 1), 0) + bias)
                for logit, bias in zip(logits, self._biases(), strict=True)
            )
        return report_side, image_side

    def matched(
        self,
        regions: Float[Tensor, "batch regions dim"],
        words: Float[Tensor, "batch words dim"],
        word_mask: Bool[Tensor, "batch words"],
        region_mask: Bool[Tensor, "batch regions"] | None = None,
    ) -> MatchedPairs:
        """The parts of the matched pairs, for the internal loss and for pictures.

        Gradients flow through what is attended, not through the weights. In at least float32 and
        without dropout.
        """
        with full_precision(regions):
            real_regions = _or_all_real(region_mask, regions)
            regions = zero_where_padded(at_least_float32(regions), region_mask)
            words = zero_where_padded(at_least_float32(words), word_mask)
            by_word, by_region = self._matched_attention(regions, words, word_mask, region_mask)
            attended_words = zero_where_padded(by_word.mT @ regions, word_mask)
            attended_regions = zero_where_padded(by_region @ words, region_mask)
            with torch.no_grad():
                word_weights, region_weights = (
                    self._token_weights(attended * tokens, mask, head)
                    for tokens, attended, mask, head in (
                        (words, attended_words, word_mask, REPORT_HEAD),
                        (regions, attended_regions, real_regions, IMAGE_HEAD),
                    )
                )
        return MatchedPairs(attended_words, attended_regions, word_weights, region_weights)

    def phrase_attention(
        self,
        regions: Float[Tensor, "batch regions dim"],
        words: Float[Tensor, "batch words dim"],
        word_mask: Bool[Tensor, "batch words"],
        region_mask: Bool[Tensor, "batch regions"] | None = None,
    ) -> Float[Tensor, "batch regions"]:
        """Where phrase b looks in image b: the attention of its words over the regions, averaged.

        Sums to 1 over the real regions (to 0 for a phrase without words). In at least float32.
        """
        with full_precision(regions):
            by_word_BRW, _ = self._matched_attention(
                zero_where_padded(at_least_float32(regions), region_mask),
                zero_where_padded(at_least_float32(words), word_mask),
                word_mask,
                region_mask,
            )
            of_real_words_BRW = torch.where(word_mask[:, None], by_word_BRW, 0.0)
            return of_real_words_BRW.sum(dim=2) / word_mask.sum(dim=1, keepdim=True).clamp(min=1)

    def _matched_attention(
        self,
        regions_BRD: Tensor,
        words_BWD: Tensor,
        word_mask_BW: Tensor,
        region_mask_BR: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Each word's attention over its image's regions, each region's over the words: B R W."""
        scores_BRW = regions_BRD @ words_BWD.mT
        if self.variant == "paper":
            scores_BRW = SHARPNESS * scores_BRW * inverse_lengths(regions_BRD)[:, :, None]
            scores_BRW = scores_BRW * inverse_lengths(words_BWD)[:, None]
        word_mask_B11W = word_mask_BW[:, None, None]
        over_regions_BR1W, over_words_BR1W = attention_logits(
            scores_BRW[:, :, None], self.variant, region_mask_BR, word_mask_B11W
        )
        region_mask_BR11 = None if region_mask_BR is None else region_mask_BR[:, :, None, None]
        by_word_BR1W = masked_softmax(over_regions_BR1W, region_mask_BR11, 1)
        by_region_BR1W = masked_softmax(over_words_BR1W, word_mask_B11W, 3)
        return by_word_BR1W[:, :, 0], by_region_BR1W[:, :, 0]

    def _token_weights(self, products_BTD: Tensor, mask_BT: Tensor, head: int) -> Tensor:
        """q of matched pairs, each of which is of one sequence that is attended: B T."""
        local = LocalAlignments(
            products_BTD[None], inverse_lengths(products_BTD)[None], mask_BT, head
        )
        scratch = Scratch(products_BTD.numel(), products_BTD.dtype, products_BTD.device)
        aggregated = aggregation_of(self._weights(products_BTD), scratch).forward(local)
        return aggregated.token_weights[0]

    def _weights(self, like: Tensor) -> PaperWeights | AuthorsWeights:
        """The weights as they enter the pairs, in the precision of `like`, at least float32."""
        dtype = at_least_float32(like).dtype
        heads = self.report_head.weight[0], self.image_head.weight[0]
        if self.variant == "authors":
            gates = self.local_gate, self.global_gate
            weights = [each for gate in gates for each in (gate.weight, gate.bias)]
            weights += [self.score.weight[0], *heads]
            return AuthorsWeights(*(each.to(dtype) for each in weights))
        report_head, image_head = (each.to(dtype) for each in heads)
        query, key, value = (each.weight.to(dtype) for each in (self.query, self.key, self.value))
        return PaperWeights(
            query.T @ key * query.shape[0] ** -0.5, report_head @ value, image_head @ value
        )

    def _biases(self) -> tuple[Tensor, Tensor]:
        report_bias: Tensor = self.report_head.bias
        if self.variant == "authors":
            # It shifts every logit of a softmax alike. Its gradient is 0, which distributed
            # training needs to see all the same.
            report_bias = report_bias + 0 * self.score.bias
        return report_bias, self.image_head.bias

    def _pair_dropout(
        self, images: SortedRows, reports: SortedRows, device: torch.device
    ) -> PairDropout | None:
        """Drawn anew with each call, from torch's generator of the CPU."""
        if not (self.training and self.dropout):
            return None
        seed = int(torch.randint(2**31, ()))
        image_ids, report_ids = (
            rows.sort(torch.arange(len(rows.lengths), device=device)) for rows in (images, reports)
        )
        return PairDropout(self.dropout, seed, image_ids, report_ids)


def _or_all_real(mask: Tensor | None, values: Tensor) -> Tensor:
    if mask is not None:
        return mask
    return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
