"""ModernBERT as a report encoder's trunk (Warner et al., arXiv:2412.13663)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import ModernBertConfig, ModernBertModel, PreTrainedModel
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from distributed_pretrain.models.pooling import (
    TokenMask,
    Tokens,
    TokenWeights,
    attention_of_first_token,
)
from distributed_pretrain.models.trunks.text import TextTrunk


class ModernBertTrunk(TextTrunk):
    """Layers with rotary positions, most of which see a window only, and a norm after the last.

    Hidden states are those between layers, but the last is normed, as Hugging Face gives them.
    """

    layers_path = "layers"
    dropouts = ("embedding_dropout", "attention_dropout", "mlp_dropout")

    @staticmethod
    def untrained(sizes: dict[str, Any]) -> PreTrainedModel:
        """A new ModernBERT."""
        # Of Hugging Face's own vocabulary, which this one need not reach.
        beyond = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        return ModernBertModel(ModernBertConfig(**sizes, pad_token_id=0, **beyond))

    def keep_layers(self, layers: int) -> None:
        """Drop all but the first `layers` layers, in the config too: exports rebuild from that."""
        super().keep_layers(layers)
        self.model.config.layer_types = self.model.config.layer_types[:layers]

    def mask_of_pairs(self, together: Bool[Tensor, "rows tokens tokens"]) -> Any:
        """By kind of layer: most see no further than a window."""
        position = torch.arange(together.shape[1], device=together.device)
        near = (position[:, None] - position).abs() <= self.model.config.sliding_window
        return {
            "full_attention": together[:, None],
            "sliding_attention": (together & near)[:, None],
        }

    @torch.no_grad()
    def first_token_attention(self, states: Tokens, token_mask: TokenMask) -> TokenWeights:
        """What the first token pays each in the last layer; 0 also outside of its window."""
        layer: Any = self.layers[-1]
        position = torch.arange(states.shape[1], device=states.device)
        if layer.attn.sliding_window is not None:
            token_mask = token_mask & (position < layer.attn.sliding_window)
        heads = self.model.config.num_attention_heads
        query, key, _ = (
            layer.attn.Wqkv(layer.attn_norm(states)).unflatten(2, (3, heads, -1)).unbind(2)
        )
        cosine, sine = self.model.rotary_emb(states, position[None], layer.attention_type)
        query, key = apply_rotary_pos_emb(query, key, cosine, sine, unsqueeze_dim=2)
        return attention_of_first_token(
            query[:, 0].flatten(1), key.flatten(2), heads=heads, token_mask=token_mask
        )
