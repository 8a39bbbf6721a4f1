"""A LoVT small enough for a test, and a batch for it."""

from __future__ import annotations

from typing import Any

import torch

from data_shards.profiles import validate
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.settings import Sizes

VOCABULARY_SIZE = 40
TINY: dict[str, Any] = {
    "name": "lovt",
    "image_encoder": {"backbone": "resnet18", "weights": None, "width": 0.125},
    "report_encoder": {
        "name": "new",
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 64,
        "dropout": 0.0,
    },
    "embedding_dim": 16,
    "projection_hidden_dim": 32,
    "pooling_heads": 4,
}


def tiny_config(**changes: Any) -> LovtConfig:
    return validate(LovtConfig, TINY | changes, where="test")


def tiny_lovt(**changes: Any) -> Lovt:
    torch.manual_seed(0)
    return tiny_config(**changes).build(Sizes(VOCABULARY_SIZE))


def tiny_batch(sentence_counts: tuple[int, ...] = (3, 1, 2, 3, 1, 2)) -> Batch:
    """Images of 96 px (3 x 3 regions); every sentence has three tokens."""
    generator = torch.Generator().manual_seed(1)
    batch, longest = len(sentence_counts), max(sentence_counts)
    counts = torch.tensor(sentence_counts)[:, None]
    position = torch.arange(3 * longest + 2).expand(batch, -1)
    token_mask = position < 3 * counts + 2
    in_sentence = (position > 0) & (position <= 3 * counts)
    token_ids = torch.randint(1, VOCABULARY_SIZE, position.shape, generator=generator)
    return Batch(
        keys=tuple(f"study-{i}" for i in range(batch)),
        images=torch.randn(batch, 1, 96, 96, generator=generator),
        report=ReportTokens(
            token_ids=token_ids * token_mask,
            token_mask=token_mask,
            sentence_index=torch.where(in_sentence, (position - 1) // 3, -1),
            sentence_mask=torch.arange(longest) < counts,
            word_index=torch.where(in_sentence, position - 1, -1),
        ),
        sample_mask=torch.ones(batch, dtype=torch.bool),
    )
