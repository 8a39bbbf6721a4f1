"""Where the words look in the image and the regions in the report: LIMITR's two attentions."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from distributed_pretrain.alignment.pair_products import masked_softmax

# B images, R regions of each, C reports, W words of each, D dim.

Variant: TypeAlias = Literal["paper", "authors"]

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
