"""What report encoders ask of a trunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor, nn
from transformers import PreTrainedModel

from distributed_pretrain.models.pooling import TokenMask, Tokens, TokenWeights

# Fused kernels, which leave padding out.
ATTENTION = "sdpa"


class TextTrunk(ABC):
    """Where things lie in a kind of Hugging Face `model`; each kind is one file beside this.

    No module itself: who holds the model gives it its name in the state dict. `max_tokens` is the
    longest report that it can read, `first_position` the number of the first token's.
    """

    max_tokens: int
    first_position: int = 0
    # The module within the model that is the list of its layers.
    layers_path: ClassVar[str]
    # What its config calls the dropouts, of hidden states and of attention.
    dropouts: ClassVar[tuple[str, ...]]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.max_tokens = model.config.max_position_embeddings

    @classmethod
    def new(
        cls,
        vocabulary_size: int,
        *,
        hidden_size: int,
        layers: int,
        heads: int,
        intermediate_size: int,
        max_tokens: int = 512,
        dropout: float = 0.1,
    ) -> TextTrunk:
        """The trunk of an untrained model; the token of number 0 is padding."""
        sizes = {
            "vocab_size": vocabulary_size,
            "hidden_size": hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": intermediate_size,
            "max_position_embeddings": max_tokens,
            "attn_implementation": ATTENTION,
        }
        return cls(cls.untrained(sizes | dict.fromkeys(cls.dropouts, dropout)))

    @staticmethod
    @abstractmethod
    def untrained(sizes: dict[str, Any]) -> PreTrainedModel:
        """A new model of a config with these `sizes`."""

    @property
    def layers(self) -> nn.ModuleList:
        """Its layers, first to last."""
        layers: nn.ModuleList = self.model.get_submodule(self.layers_path)
        return layers

    def keep_layers(self, layers: int) -> None:
        """Drop all but the first `layers` layers, in the config too: exports rebuild from that."""
        parent, _, name = self.layers_path.rpartition(".")
        setattr(self.model.get_submodule(parent), name, self.layers[:layers])
        self.model.config.num_hidden_layers = layers

    def attention_mask(self, attended: TokenMask) -> Tensor:
        """What the model takes for tokens that are to be attended, from each of their row."""
        return attended.long()

    def mask_of_pairs(self, together: Bool[Tensor, "rows tokens tokens"]) -> Any:
        """What the model takes where a token sees those that it is `together` with."""
        return together[:, None]

    @abstractmethod
    def first_token_attention(self, states: Tokens, token_mask: TokenMask) -> TokenWeights:
        """`attention_of_first_token` in the last layer, whose input is `states`; no dropout."""
