"""A batch without padding, whose operations are counted or whose time is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch, Lateral, ReportTokens, SecondView
from distributed_pretrain.data.settings import Views

_TOKENS_A_SENTENCE = 16


def full_batch(
    device: torch.device,
    *,
    rows: int,
    image_size_px: int,
    tokens: int,
    tokens_a_sentence: int = _TOKENS_A_SENTENCE,
    views: Views = "frontal",
    classes: int = 0,
) -> Batch:
    """Pairs without padding: black images, one token over and over.

    The first and last token stand for [CLS] and [SEP]; the last sentence has what is left over,
    and every token between is a word. A second view shows the very same place, and all labels
    are 0.
    """
    sentences = max(1, tokens // tokens_a_sentence)
    sentence_index = torch.arange(tokens, device=device) // tokens_a_sentence
    sentence_index = sentence_index.clamp(max=sentences - 1)
    sentence_index[[0, -1]] = -1

    word_index = torch.arange(tokens, device=device) - 1
    word_index[-1] = -1
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
            sentence_index=sentence_index.expand(rows, -1),
            sentence_mask=ones(rows, sentences),
            word_index=word_index.expand(rows, -1),
        ),
        sample_mask=ones(rows),
        lateral=Lateral(images, ones(rows)) if views == "frontal_lateral" else None,
        second_view=SecondView(images, same) if views == "two_augmentations" else None,
        labels=torch.zeros(rows, classes, device=device) if classes else None,
    )
