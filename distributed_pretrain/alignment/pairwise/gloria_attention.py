"""Where a phrase looks in its image, by GLoRIA's attention."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.alignment.pairwise.products import masked_softmax
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)

# B batch, R regions, W words, D dim.


def gloria_phrase_attention(
    regions: Float[Tensor, "batch regions dim"],
    words: Float[Tensor, "batch words dim"],
    word_mask: Bool[Tensor, "batch words"],
    *,
    attention_temperature: float = 4.0,
) -> Float[Tensor, "batch regions"]:
    """The attention of phrase b's words over the regions of image b, averaged over its real words.

    That of `gloria_similarity` for the matched pairs: it sums to 1 (to 0 for a phrase without
    words). In at least float32.
    """
    with full_precision(regions):
        words_BWD = zero_where_padded(at_least_float32(words), word_mask)
        scores_BRW = at_least_float32(regions) @ words_BWD.mT
        over_words_BRW = masked_softmax(scores_BRW, word_mask[:, None], 2)
        attention_BRW = (attention_temperature * over_words_BRW).softmax(dim=1)
        of_real_words_BRW = torch.where(word_mask[:, None], attention_BRW, 0.0)
        return of_real_words_BRW.sum(dim=2) / word_mask.sum(dim=1, keepdim=True).clamp(min=1)
