"""A batch without padding, whose operations are counted or whose time is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch, Lateral, ReportTokens, SecondView
from distributed_pretrain.data.settings import Views


def full_batch(
    device: torch.device,
    *,
    rows: int,
    image_size_px: int,
    tokens: int,
    tokens_a_sentence: int = 16,
    views: Views = "frontal",
    classes: int = 0,
) -> Batch:
    """Pairs without padding: black images, one token over and over.

    The first and last token stand for [CLS] and [SEP]; the last sentence has what is left over,
    and every token between is a word. A second view shows the very same place, and all labels are
    0. The host knows that nothing is padding.
    """
    sentences = max(1, tokens // tokens_a_sentence)
    position = torch.arange(tokens, device=device)
    is_word = (position > 0) & (position < tokens - 1)
    sentence_index = (position // tokens_a_sentence).clamp(max=sentences - 1)
    images = torch.zeros(rows, 1, image_size_px, image_size_px, device=device)
    same = torch.eye(2, 3, device=device).expand(rows, 2, 2, 3)

    def ones(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.bool, device=device)

    return Batch(
        keys=tuple(map(str, range(rows))),
        images=images,
        report=ReportTokens(
            token_ids=torch.ones(rows, tokens, dtype=torch.long, device=device),
            token_mask=ones(rows, tokens),
            sentence_index=torch.where(is_word, sentence_index, -1).expand(rows, -1),
            sentence_mask=ones(rows, sentences),
            word_index=torch.where(is_word, position - 1, -1).expand(rows, -1),
            lengths=(tokens,) * rows,
            sentences=(sentences,) * rows,
            words=(max(0, tokens - 2),) * rows,
        ),
        sample_mask=ones(rows),
        lateral=Lateral(images, ones(rows), (True,) * rows) if views == "frontal_lateral" else None,
        second_view=SecondView(images, same) if views == "two_augmentations" else None,
        labels=torch.zeros(rows, classes, device=device) if classes else None,
        real=(True,) * rows,
    )
