"""BERT as a report encoder's trunk, and models that are laid out like it (RoBERTa, ELECTRA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel

from distributed_pretrain.models.pooling import (
    TokenMask,
    Tokens,
    TokenWeights,
    attention_of_first_token,
)
from distributed_pretrain.models.trunks.text import TextTrunk


class BertTrunk(TextTrunk):
    """Embeddings, and a stack of layers in `encoder`."""

    layers_path = "encoder.layer"
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        # The pooler of CLS would be a trained layer without gradient.
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        # A RoBERTa counts positions from the one after padding's.
        padding_position = getattr(model.embeddings, "padding_idx", None)
        if padding_position is not None:
            self.first_position = padding_position + 1
            self.max_tokens -= self.first_position

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether the model is laid out like a BERT."""
        return hasattr(model, "embeddings") and hasattr(getattr(model, "encoder", None), "layer")

    @staticmethod
    def untrained(sizes: dict[str, Any]) -> PreTrainedModel:
        """A new BERT."""
        return BertModel(BertConfig(**sizes), add_pooling_layer=False)

    def attention_mask(self, attended: TokenMask) -> Tensor:
        """By head and query: transformers would look, on the host, whether all are attended."""
        return attended[:, None, None]

    @torch.no_grad()
    def first_token_attention(self, states: Tokens, token_mask: TokenMask) -> TokenWeights:
        """That of the last layer's own queries and keys."""
        last: Any = self.layers[-1]
        attention = last.attention.self
        return attention_of_first_token(
            attention.query(states[:, 0]),
            attention.key(states),
            heads=attention.num_attention_heads,
            token_mask=token_mask,
        )
