"""One vector from many: of a sample from its regions or sentences, of those from their tokens."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.errors import InputError
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    without_columns,
    zero_where_padded,
)

Tokens: TypeAlias = Float[Tensor, "batch tokens dim"]
TokenMask: TypeAlias = Bool[Tensor, "batch tokens"]
TokenWeights: TypeAlias = Float[Tensor, "batch tokens"]
TokenNumbers: TypeAlias = Int[Tensor, "batch tokens"]
Vectors: TypeAlias = Float[Tensor, "batch dim"]

# B batch, T tokens (regions or sentences), H heads, D dim, E = D / H dim of a head.


class AttentionPooling(nn.Module):
    """Multi-head attention whose one query is the mean of a sample's real tokens (LoVT, 3.3).

    The same function and the same parameters, by name and shape, as `nn.MultiheadAttention(dim,
    heads)`: 16,785,408 for 2048 dimensions, 2,362,368 for 768. With a single query the key
    projection can act on the query and the value projection on the weighted mean, so that the
    projections cost once a sample instead of once a token. Raises InputError when `heads` does
    not divide `dim`.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(
                f"attention pooling: {heads} heads do not divide {dim} dimensions: "
                "choose a number of heads that does"
            )
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, tokens: Tokens, token_mask: TokenMask | None = None
    ) -> tuple[Vectors, TokenWeights]:
        """The pooled vector, and the attention weights averaged over the heads.

        The weights sum to 1 over a sample's real tokens (mask True) and are 0 on padding; a
        sample without any real token has weights 0. Gradients flow through both.
        """
        batch, _, dim = tokens.shape
        per_head = (self.heads, dim // self.heads)
        tokens_BTD = zero_where_padded(tokens, token_mask)
        weight_q, weight_k, weight_v = self.in_proj_weight.chunk(3)
        bias_q, bias_k, bias_v = self.in_proj_bias.chunk(3)

        query_BHE = F.linear(mean_of_tokens(tokens_BTD, token_mask), weight_q, bias_q).view(
            batch, *per_head
        )
        query_BHE = query_BHE * per_head[1] ** -0.5
        # <q, W_k x + b_k> = <W_k^T q, x> + <q, b_k>
        query_on_tokens_BHD = torch.einsum("bhe,hed->bhd", query_BHE, weight_k.view(*per_head, dim))
        key_bias_BH = torch.einsum("bhe,he->bh", query_BHE, bias_k.view(per_head))
        scores_BHT = query_on_tokens_BHD @ tokens_BTD.mT + key_bias_BH.unsqueeze(-1)
        column_mask_B1T = None if token_mask is None else token_mask.unsqueeze(1)
        attention_BHT = without_columns(scores_BHT, column_mask_B1T).softmax(dim=-1)

        # Σ_t a_t (W_v x_t + b_v) = W_v Σ_t a_t x_t + b_v
        mean_BHD = attention_BHT.to(tokens_BTD.dtype) @ tokens_BTD
        value_BHE = torch.einsum("bhd,hed->bhe", mean_BHD, weight_v.view(*per_head, dim))
        value_BD = value_BHE.reshape(batch, dim) + bias_v
        weights_BT = attention_BHT.mean(dim=1)
        if token_mask is not None:
            weights_BT = torch.where(token_mask, weights_BT, 0.0)
        return self.out_proj(value_BD), weights_BT

    def of_single(self, tokens: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens dim"]:
        """For each token what pooling gives of a sample that has this token alone."""
        _, _, weight_v = self.in_proj_weight.chunk(3)
        _, _, bias_v = self.in_proj_bias.chunk(3)
        pooled: Tensor = self.out_proj(F.linear(tokens, weight_v, bias_v))
        return pooled


@torch.no_grad()
def attention_of_first_token(
    query: Vectors, keys: Tokens, *, heads: int, token_mask: TokenMask | None = None
) -> TokenWeights:
    """What one token pays each token in a transformer's layer, the mean over heads.

    For its projected `query` and the projected `keys`: the fused kernels give the layer's output
    without these weights. They sum to 1 over real tokens (mask True) and are 0 on padding; without
    gradient, in at least float32.
    """
    with full_precision(query):
        query_BHE, keys_BTHE = (
            at_least_float32(each).unflatten(-1, (heads, -1)) for each in (query, keys)
        )
        scores_BHT = torch.einsum("bhe,bthe->bht", query_BHE, keys_BTHE)
        scores_BHT = scores_BHT * query_BHE.shape[-1] ** -0.5
        column_mask_B1T = None if token_mask is None else token_mask.unsqueeze(1)
        weights_BT = without_columns(scores_BHT, column_mask_B1T).softmax(dim=-1).mean(dim=1)
        return weights_BT if token_mask is None else torch.where(token_mask, weights_BT, 0.0)


def mean_of_tokens(tokens: Tokens, token_mask: TokenMask | None) -> Vectors:
    """The mean over each sample's real tokens, 0 without any.

    Dividing by the padded length instead, as the authors' code does, would make the result
    depend on the other reports of the batch.
    """
    if token_mask is None:
        return tokens.mean(dim=1)
    count_B1 = token_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return zero_where_padded(tokens, token_mask).sum(dim=1) / count_B1


def max_of_tokens(tokens: Tokens, token_mask: TokenMask) -> Vectors:
    """The maximum over each sample's real tokens, 0 without any."""
    lowest = torch.finfo(tokens.dtype).min
    highest = torch.where(token_mask.unsqueeze(-1), tokens, lowest).amax(dim=1)
    return zero_where_padded(highest, token_mask.any(dim=1))


def uniform_weights(token_mask: TokenMask, dtype: torch.dtype = torch.float32) -> TokenWeights:
    """Equal weights that sum to 1 over each sample's real tokens, 0 on padding."""
    weights_BT = token_mask.to(dtype)
    return weights_BT / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)


def pool_sentences(
    tokens: Tokens, sentence_index: TokenNumbers, sentence_mask: Bool[Tensor, "batch sentences"]
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


def sum_word_pieces(
    tokens: Tokens, word_index: TokenNumbers, *, words: int | None = None
) -> tuple[Float[Tensor, "batch words dim"], Bool[Tensor, "batch words"]]:
    """Each word as the sum of its pieces, and a mask of the words a report has.

    `word_index` numbers each report's words from 0 and is -1 for tokens outside every word. `words`
    is the number of columns to give, at least that of the longest report; left out, it is read from
    the index, for which the host waits for the device. Words a report has not are zeros. In the
    dtype of `tokens`.
    """
    if words is None:
        words = int(word_index.max()) + 1
    belongs_BWT = word_index.unsqueeze(1) == torch.arange(words, device=tokens.device)[:, None]
    # A product with a matrix of zeros and ones: unlike adding by index it gives the same sum each
    # time on a GPU, and it costs nothing beside the encoder.
    with full_precision(tokens):
        pieces_BTD = zero_where_padded(tokens, word_index >= 0)
        return belongs_BWT.to(tokens.dtype) @ pieces_BTD, belongs_BWT.any(dim=2)
