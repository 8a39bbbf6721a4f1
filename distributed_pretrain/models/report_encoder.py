"""Report encoders: a BERT over the whole report, one embedding a sentence out."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel, PreTrainedModel

from data_shards.records.errors import InputError
from distributed_pretrain.losses.precision import zero_where_padded

_ATTENTION = "sdpa"
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


class ReportEncoder(nn.Module):
    """A Hugging Face BERT whose sentence embeddings are maxima over the sentences' tokens.

    `dim` is its hidden size, `max_tokens` the longest report it can read, `vocabulary_size` the
    number of its token embeddings.
    """

    def __init__(self, bert: PreTrainedModel) -> None:
        super().__init__()
        # The pooler of CLS would be a trained layer without gradient.
        if getattr(bert, "pooler", None) is not None:
            bert.pooler = None
        self.bert: PreTrainedModel = bert
        self.dim: int = bert.config.hidden_size
        self.max_tokens: int = bert.config.max_position_embeddings
        self.vocabulary_size: int = bert.config.vocab_size

    def forward(
        self,
        token_ids: Int[Tensor, "batch tokens"],
        token_mask: Bool[Tensor, "batch tokens"],
        sentence_index: Int[Tensor, "batch tokens"],
        sentence_mask: Bool[Tensor, "batch sentences"],
    ) -> Float[Tensor, "batch sentences {self.dim}"]:
        """Sentence embeddings; zeros for padded sentences (`sentence_mask` False)."""
        tokens = self.embed_tokens(token_ids, token_mask)
        return pool_sentences(tokens, sentence_index, sentence_mask)

    def embed_tokens(
        self, token_ids: Int[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens {self.dim}"]:
        """The last hidden states; those of padding (mask False) mean nothing but are finite."""
        assert token_ids.shape[1] <= self.max_tokens, "reports are cut when they are tokenised"
        # A row without any token (it fills up a batch) would be a softmax over nothing: NaN.
        attended = token_mask | ~token_mask.any(dim=1, keepdim=True)
        hidden: Tensor = self.bert(token_ids, attention_mask=attended.long()).last_hidden_state
        return hidden

    def freeze(self, layers: int) -> None:
        """Exclude the embeddings and the first `layers` layers from training.

        Their dropout stays active in training mode, as in the authors' code. Raises InputError
        when there are fewer layers.
        """
        own_layers = self.bert.encoder.layer
        if layers > len(own_layers):
            raise InputError(
                f"frozen_layers={layers}: the report encoder has {len(own_layers)} layers: "
                f"freeze at most these"
            )
        self.bert.embeddings.requires_grad_(False)
        for layer in own_layers[:layers]:
            layer.requires_grad_(False)


def pool_sentences(
    tokens: Float[Tensor, "batch tokens dim"],
    sentence_index: Int[Tensor, "batch tokens"],
    sentence_mask: Bool[Tensor, "batch sentences"],
) -> Float[Tensor, "batch sentences dim"]:
    """The maximum over each sentence's tokens; zeros where `sentence_mask` is False.

    `sentence_index` is -1 for tokens outside every sentence; every real sentence has a token.
    Tokens with the same maximum share the gradient.
    """
    batch, _, dim = tokens.shape
    outside = sentence_mask.shape[1]
    slot = torch.where(sentence_index < 0, outside, sentence_index)
    # Slots start below every value: one that equals the maximum would take a share of the
    # gradient, even with `include_self=False`.
    lowest = torch.finfo(tokens.dtype).min
    pooled = tokens.new_full((batch, outside + 1, dim), lowest).scatter_reduce(
        1, slot.long().unsqueeze(-1).expand(-1, -1, dim), tokens, reduce="amax"
    )
    return zero_where_padded(pooled[:, :outside], sentence_mask)


def pretrained_report_encoder(model: str) -> ReportEncoder:
    """The encoder of a BERT on the Hugging Face hub or in a local folder.

    Raises InputError when the folder holds no weights, the hub cannot be reached, or the model
    is not laid out like a BERT (embeddings and a stack of layers).
    """
    folder = Path(model)
    if folder.is_dir() and not any(file for kind in _WEIGHT_FILES for file in folder.glob(kind)):
        raise InputError(
            f"{model}: a folder without model weights (model.safetensors or pytorch_model.bin): "
            "give a folder written by save_pretrained or `hf download NAME --local-dir FOLDER`"
        )
    try:
        bert = AutoModel.from_pretrained(model, attn_implementation=_ATTENTION, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{model}: no text encoder could be loaded ({reason}): where there is a network, "
            f"run `hf download {model} --local-dir FOLDER`, and give FOLDER instead of the name"
        ) from error
    if not hasattr(bert, "embeddings") or not hasattr(getattr(bert, "encoder", None), "layer"):
        raise InputError(f"{model}: a {type(bert).__name__} is not laid out like a BERT: use one")
    return ReportEncoder(bert)


def new_report_encoder(
    vocabulary_size: int,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int,
    max_tokens: int = 512,
    dropout: float = 0.1,
) -> ReportEncoder:
    """An untrained BERT of the given size; `dropout` applies to hidden states and attention."""
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        attn_implementation=_ATTENTION,
    )
    return ReportEncoder(BertModel(config, add_pooling_layer=False))
