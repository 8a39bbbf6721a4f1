"""Where the words look in the image and the regions in the report, and what they see (eqs 1-3).

The attentions are small and left to automatic differentiation. What is seen, seven times as large,
is made anew in backward but for what fits into a fixed sum of bytes, and its gradient is written
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from distributed_pretrain.alignment.limitr_aggregation import (
    Aggregated,
    Aggregation,
    AuthorsAggregation,
    LocalAlignments,
)
from distributed_pretrain.alignment.pair_blocks import KeptBytes
from distributed_pretrain.alignment.pair_dropout import PairDropout
from distributed_pretrain.alignment.pair_products import add_product, masked_softmax
from distributed_pretrain.losses.precision import at_least_float32

# B images, R regions of each, C reports, W words of each, D dim. For both directions at once:
# O sequences that are attended, U places of each, I sequences that attend, T tokens of each.

Variant: TypeAlias = Literal["paper", "authors"]

REPORT_HEAD, IMAGE_HEAD = 0, 1

SHARPNESS = 4.0  # λ of the paper's eq 1, and the authors' second softmax


def pair_attention(
    scores_BRCW: Tensor,
    region_scale_BR: Tensor | None,
    word_scale_CW: Tensor | None,
    region_mask_BR: Tensor | None,
    word_mask_CW: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Each word's attention over the regions, and each region's over the words: both B R C W.

    `paper` (scales given: 1 over the lengths of the vectors) is softmax(λ cosine). `authors`
    (none given) first takes a softmax of the raw scores over the side that attends, and then
    softmax(λ x) over the side that is attended. Masks: True = real; padding takes part in no
    softmax. What a padded row attends to means nothing. Tensors of C W need only broadcast
    against B R C W (matched pairs: B 1 1 W).
    """
    region_mask = None if region_mask_BR is None else region_mask_BR[:, :, None, None]
    if region_scale_BR is not None and word_scale_CW is not None:
        region_scale = SHARPNESS * region_scale_BR[:, :, None, None]
        over_regions = over_words = scores_BRCW * region_scale * word_scale_CW
    else:
        over_regions = SHARPNESS * masked_softmax(scores_BRCW, word_mask_CW, 3)
        over_words = SHARPNESS * masked_softmax(scores_BRCW, region_mask, 1)
    return (
        masked_softmax(over_regions, region_mask, 1),
        masked_softmax(over_words, word_mask_CW, 3),
    )


@dataclass(frozen=True)
class Direction:
    """Tokens (I T D) and their mask, what they attend to (O U D) and how: O, I x T, U."""

    head: int
    tokens: Tensor
    mask: Tensor
    attended: Tensor
    attention: Tensor
    dropout: PairDropout | None

    @property
    def words_attend(self) -> bool:
        """Whether O are images and I reports, rather than the other way round."""
        return self.head == REPORT_HEAD

    def local_alignments(self, products_OITD: Tensor, inverse_OIT: Tensor) -> LocalAlignments:
        """The products with what belongs to them."""
        return LocalAlignments(products_OITD, inverse_OIT, self.mask, self.head, self.dropout)


@dataclass(frozen=True)
class DirectionResult:
    """What forward leaves of a direction: always what is small, m (O I T D) if there was room."""

    inverse: Tensor
    aggregated: Aggregated
    attended: Tensor | None


def _attended(direction: Direction) -> Tensor:
    """m of every token: what it attends to (eq 2), O I T D."""
    attended_OxITxD = direction.attention @ direction.attended
    return attended_OxITxD.view(-1, *direction.tokens.shape)


def direction_forward(
    direction: Direction, aggregation: Aggregation, kept_bytes: KeptBytes | None
) -> DirectionResult:
    """Logits and weights of one direction of a block, and what may be kept for backward.

    The authors' gates rather than m: they take as much room and five times as long to make.
    """
    attended_OITD = _attended(direction)
    room = kept_bytes is not None and kept_bytes.take(attended_OITD.nbytes)
    keep_gates = room and isinstance(aggregation, AuthorsAggregation)
    keep_attended = room and not keep_gates
    products_OITD = (
        attended_OITD * direction.tokens if keep_attended else attended_OITD.mul_(direction.tokens)
    )
    dtype = at_least_float32(products_OITD).dtype
    length_OIT = torch.linalg.vector_norm(products_OITD, dim=-1, dtype=dtype)
    inverse_OIT = torch.where(length_OIT > 0, 1 / length_OIT, 0.0)
    local = direction.local_alignments(products_OITD, inverse_OIT)
    aggregated = aggregation.forward(local, keep_gates=keep_gates)
    return DirectionResult(inverse_OIT, aggregated, attended_OITD if keep_attended else None)


def direction_backward(
    direction: Direction,
    aggregation: Aggregation,
    result: DirectionResult,
    d_logits_OI: Tensor,
    d_tokens_ITD: Tensor,
    d_attended_OUD: Tensor,
    d_weights: list[Tensor],
) -> Tensor:
    """The gradient of the attention; that of tokens, attended and weights is added in place."""
    attended_OITD = _attended(direction) if result.attended is None else result.attended
    local = direction.local_alignments(attended_OITD * direction.tokens, result.inverse)
    d_products_OITD = aggregation.backward(local, result.aggregated, d_logits_OI, d_weights)
    del local
    # Through p = m o t.
    _add_sum_of_products(d_tokens_ITD, attended_OITD, d_products_OITD)
    del attended_OITD
    d_attended_OxITxD = d_products_OITD.mul_(direction.tokens).flatten(1, 2)
    # Through m = attention @ attended.
    add_product(d_attended_OUD, direction.attention.mT, d_attended_OxITxD)
    return d_attended_OxITxD @ direction.attended.mT


def _add_sum_of_products(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add Σ_o left_o o right_o, which are I T D each, to `total`, which may be more precise."""
    if total.dtype == left.dtype:
        # One pass, where a product and its sum would take three and memory for it.
        for one, other in zip(left, right, strict=True):
            total.addcmul_(one, other)
    else:
        total.add_((left * right).sum(dim=0, dtype=total.dtype))
