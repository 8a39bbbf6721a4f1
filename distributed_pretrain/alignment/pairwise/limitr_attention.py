"""Where the words look in the image and the regions in the report, and what they see (eqs 1-3).

The logits of the attentions are small and left to automatic differentiation. What is seen, seven
times as large, is made anew in backward but for what fits into a fixed sum of bytes, and its
gradient is written out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distributed_pretrain.alignment.pairwise.dropout import PairDropout
from distributed_pretrain.alignment.pairwise.limitr_aggregation import (
    Aggregated,
    Aggregation,
    AuthorsAggregation,
    LocalAlignments,
)
from distributed_pretrain.alignment.pairwise.memory import KeptMemory, Scratch
from distributed_pretrain.alignment.pairwise.products import add_product, masked_softmax
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.losses.precision import at_least_float32

# B images, R regions of each, C reports, W words of each, D dim. For both directions at once:
# O sequences that are attended, U places of each, I sequences that attend, T tokens of each.


REPORT_HEAD, IMAGE_HEAD = 0, 1

SHARPNESS = 4.0  # λ of the paper's eq 1, and the authors' second softmax


def attention_logits(
    scores_BRCW: Tensor, variant: Variant, region_mask_BR: Tensor | None, word_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The logits of each word's attention over the regions, and of each region's over the words.

    Both are B R C W. In `paper` the scores are λ cosine, and the logits. `authors` takes a softmax
    of the raw scores over the side that attends, times λ. Masks: True = real; padding takes part in
    no softmax, and what it attends to means nothing. `word_mask` (C W) need only broadcast against
    B R C W (matched pairs: B 1 1 W).
    """
    if variant == "paper":
        return scores_BRCW, scores_BRCW
    region_mask = None if region_mask_BR is None else region_mask_BR[:, :, None, None]
    return (
        SHARPNESS * masked_softmax(scores_BRCW, word_mask, 3),
        SHARPNESS * masked_softmax(scores_BRCW, region_mask, 1),
    )


@dataclass(frozen=True)
class DirectionResult:
    """What forward leaves of a direction: always what is small, m (O I T D) if there was room."""

    inverse: Tensor
    aggregated: Aggregated
    attended: Tensor | None


@dataclass(frozen=True)
class Direction:
    """Tokens (I T D) and their mask, what they attend to (O U D) and how much: O, I x T, U.

    The weights are e to the logits: a local alignment has length 1, so that a softmax's divisor
    would cancel, in its gradient too. Padding counts, with vectors of zeros.
    """

    head: int
    tokens: Tensor
    mask: Tensor
    attended: Tensor
    weights: Tensor
    dropout: PairDropout | None
    aggregation: Aggregation
    scratch: Scratch

    @property
    def words_attend(self) -> bool:
        """Whether O are images and I reports, rather than the other way round."""
        return self.head == REPORT_HEAD

    def forward(self, kept: KeptMemory | None) -> DirectionResult:
        """Logits and weights, and what may be kept for backward.

        Kept is what saves the most work for its size: the authors' gates, and in `paper` what the
        words attend to, but not the same of the regions, which are several times as many.
        """
        kept_attended = kept_gates = None
        if kept is not None and isinstance(self.aggregation, AuthorsAggregation):
            kept_gates = kept.place(self._shape, self.tokens.dtype)
        elif kept is not None and self.words_attend:
            kept_attended = kept.place(self._shape, self.tokens.dtype)
        products_OITD = self.scratch.place("products", self._shape)
        attended_OITD = products_OITD if kept_attended is None else kept_attended
        self._attend(attended_OITD)
        torch.mul(attended_OITD, self.tokens, out=products_OITD)
        dtype = at_least_float32(products_OITD).dtype
        length_OIT = torch.linalg.vector_norm(products_OITD, dim=-1, dtype=dtype)
        inverse_OIT = torch.where(length_OIT > 0, 1 / length_OIT, 0.0)
        local = LocalAlignments(products_OITD, inverse_OIT, self.mask, self.head, self.dropout)
        aggregated = self.aggregation.forward(local, kept_gates=kept_gates)
        return DirectionResult(inverse_OIT, aggregated, kept_attended)

    def backward(
        self,
        result: DirectionResult,
        d_logits_OI: Tensor,
        d_tokens_ITD: Tensor,
        d_attended_OUD: Tensor,
        d_weights: list[Tensor],
    ) -> Tensor:
        """The gradient of the attention's weights; the other inputs' is added in place."""
        attended_OITD = result.attended
        if attended_OITD is None:
            attended_OITD = self._attend(self.scratch.place("attended", self._shape))
        products_OITD = self.scratch.place("products", self._shape)
        torch.mul(attended_OITD, self.tokens, out=products_OITD)
        local = LocalAlignments(products_OITD, result.inverse, self.mask, self.head, self.dropout)
        d_products_OITD = self.aggregation.backward(
            local, result.aggregated, d_logits_OI, d_weights
        )
        # Through p = m o t.
        _add_sum_of_products(d_tokens_ITD, attended_OITD, d_products_OITD)
        d_attended_OxITxD = d_products_OITD.mul_(self.tokens).flatten(1, 2)
        # Through m = weights @ attended.
        add_product(d_attended_OUD, self.weights.mT, d_attended_OxITxD)
        if self.words_attend:
            # In the order of the scores.
            return (self.attended @ d_attended_OxITxD.mT).mT
        return d_attended_OxITxD @ self.attended.mT

    @property
    def _shape(self) -> tuple[int, ...]:
        """O I T D."""
        return (len(self.attended), *self.tokens.shape)

    def _attend(self, place_OITD: Tensor) -> Tensor:
        """m of every token, what it attends to (eq 2) times its softmax's divisor, in `place`."""
        torch.bmm(self.weights, self.attended, out=place_OITD.flatten(1, 2))
        return place_OITD


def _add_sum_of_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add Σ_o left_o o right_o, which are I T D each, to `total`, which may be more precise."""
    if total.dtype == left.dtype:
        # One pass, where a product and its sum would take three and memory for it.
        for one, other in zip(left, right, strict=True):
            total.addcmul_(one, other)
    else:
        total.add_((left * right).sum(dim=0, dtype=total.dtype))
