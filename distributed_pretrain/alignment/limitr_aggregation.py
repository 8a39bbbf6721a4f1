"""LIMITR's aggregations: the local alignments of a pair become one score (eqs 4-5).

Forward and backward are written out. The local alignments of a block of pairs are by far the
largest tensors of the method, and a chain of recorded operations would go over them, and keep
them, several times as often. The weights come with every call, as `...Weights`; their gradients
are added to another of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.pair_dropout import PairDropout

# O images or reports that are attended, I reports or images that attend, T words or regions
# of these, D dim. A pair is one O and one I.


class PaperWeights(NamedTuple):
    """Folded matrices of eqs 4-5: W_qᵀ W_k / √d (D D), and W_vᵀ times each head (D)."""

    key_query: Tensor
    report_head: Tensor
    image_head: Tensor


class AuthorsWeights(NamedTuple):
    """The authors' linear layers: D D and D, as the score and the heads.

    The score's bias shifts all logits of a softmax alike, and is absent.
    """

    local_weight: Tensor
    local_bias: Tensor
    global_weight: Tensor
    global_bias: Tensor
    score: Tensor
    report_head: Tensor
    image_head: Tensor


@dataclass(frozen=True)
class Aggregated:
    """Each pair's logit, and how much each of its tokens counts: O I and O I T."""

    logits: Tensor
    token_weights: Tensor


class PaperAggregation:
    """Eqs 4-5: a dot-product attention of the mean alignment, folded.

    (W_q ā)·(W_k a_t) = (W_kᵀ W_q ā)·a_t and head·Σ q_t W_v a_t = Σ q_t (W_vᵀ head)·a_t, so every
    token meets three vectors instead of two matrices.
    """

    def __init__(self, weights: PaperWeights) -> None:
        self.weights = weights

    def forward(
        self, aligned_OITD: Tensor, mask_IT: Tensor, head: int, dropout: PairDropout | None
    ) -> Aggregated:
        """Logits and weights of every pair. `mask`: True = real, `head`: 0 report, 1 image."""
        assert dropout is None, "the equations have none"
        *_, value_OIT, weight_OIT = self._scores(aligned_OITD, mask_IT, head)
        return Aggregated((weight_OIT * value_OIT).sum(dim=-1), weight_OIT)

    def _scores(
        self, aligned_OITD: Tensor, mask_IT: Tensor, head: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        mean_IT = _mean_weights(mask_IT, self.weights.key_query.dtype)
        mean_OID = _weighted_sum(mean_IT.expand(len(aligned_OITD), -1, -1), aligned_OITD)
        query_OID = mean_OID @ self.weights.key_query
        head_OID = self.weights[1 + head].expand_as(query_OID)
        logits_OIT, value_OIT = _dots(aligned_OITD, query_OID, head_OID)
        return mean_OID, query_OID, head_OID, logits_OIT, value_OIT, _softmax(logits_OIT, mask_IT)

    def backward(
        self,
        aligned_OITD: Tensor,
        mask_IT: Tensor,
        head: int,
        dropout: PairDropout | None,
        d_logit_OI: Tensor,
        gradients: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The gradient of `aligned`, and its product with `aligned`: O I T D and O I T.

        The gradients of the weights are added to `gradients`, in their order.
        """
        assert dropout is None, "the equations have none"
        mean_OID, query_OID, head_OID, logits_OIT, value_OIT, weight_OIT = self._scores(
            aligned_OITD, mask_IT, head
        )
        d_value_OIT = d_logit_OI[..., None] * weight_OIT
        pair_value_OI1 = (weight_OIT * value_OIT).sum(dim=-1, keepdim=True)
        d_logits_OIT = d_value_OIT * (value_OIT - pair_value_OI1)
        d_query_OID, d_head_OID = _weighted_sums(aligned_OITD, d_logits_OIT, d_value_OIT)
        d_mean_OID = d_query_OID @ self.weights.key_query.T
        gradients[0].addmm_(mean_OID.flatten(0, 1).T, d_query_OID.flatten(0, 1))
        gradients[1 + head].add_(d_head_OID.sum(dim=(0, 1)))
        mean_OIT = _mean_weights(mask_IT, d_mean_OID.dtype).expand_as(weight_OIT)
        (mean_dot_OIT,) = _dots(aligned_OITD, d_mean_OID)
        along_OIT = d_logits_OIT * logits_OIT + d_value_OIT * value_OIT + mean_OIT * mean_dot_OIT
        d_aligned_OITD = _outer(
            torch.stack([d_logits_OIT, d_value_OIT, mean_OIT], dim=-1),
            torch.stack([query_OID, head_OID, d_mean_OID], dim=-2),
            aligned_OITD.dtype,
        )
        return d_aligned_OITD, along_OIT


class AuthorsAggregation:
    """The authors' gate: q = softmax_t(w (l_t o g)), l_t = tanh(W_l a_t + b), g = tanh(W_g ā + b).

    The score is the head's of the normalised Σ q_t a_t. `dropout` acts on l and g.
    """

    def __init__(self, weights: AuthorsWeights) -> None:
        self.weights = weights

    def forward(
        self, aligned_OITD: Tensor, mask_IT: Tensor, head: int, dropout: PairDropout | None
    ) -> Aggregated:
        """Logits and weights of every pair. `mask`: True = real, `head`: 0 report, 1 image."""
        local_OITD = self._local(aligned_OITD)
        *_, weight_OIT = self._weights(aligned_OITD, local_OITD, mask_IT, dropout)
        unit_OID, _ = _unit(_weighted_sum(weight_OIT, aligned_OITD))
        return Aggregated(unit_OID @ self.weights[5 + head], weight_OIT)

    def _local(self, aligned_OITD: Tensor) -> Tensor:
        dtype = aligned_OITD.dtype
        weight, bias = self.weights.local_weight, self.weights.local_bias
        local_OITD = F.linear(aligned_OITD, weight.to(dtype), bias.to(dtype))
        return local_OITD.tanh_()

    def _weights(
        self,
        aligned_OITD: Tensor,
        local_OITD: Tensor,
        mask_IT: Tensor,
        dropout: PairDropout | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ā, tanh(W_g ā + b), what the dropout makes of it, and q. Dropped numbers of l are 0."""
        weights = self.weights
        mean_IT = _mean_weights(mask_IT, weights.score.dtype)
        mean_OID = _weighted_sum(mean_IT.expand(len(aligned_OITD), -1, -1), aligned_OITD)
        raw_gate_OID = F.linear(mean_OID, weights.global_weight, weights.global_bias).tanh_()
        gate_OID = raw_gate_OID
        if dropout is not None:
            dropout.drop_tokens_(local_OITD)
            # Both factors are scaled here, as l is a hundred times larger than g.
            gate_OID = dropout.drop_pairs_(raw_gate_OID.clone()).mul_(dropout.scale**2)
        (logits_OIT,) = _dots(local_OITD, gate_OID * weights.score)
        return mean_OID, raw_gate_OID, gate_OID, _softmax(logits_OIT, mask_IT)

    def backward(
        self,
        aligned_OITD: Tensor,
        mask_IT: Tensor,
        head: int,
        dropout: PairDropout | None,
        d_logit_OI: Tensor,
        gradients: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The gradient of `aligned`, and its product with `aligned`: O I T D and O I T.

        The gradients of the weights are added to `gradients`, in their order.
        """
        weights, d_weights = self.weights, AuthorsWeights(*gradients)
        local_OITD = self._local(aligned_OITD)
        mean_OID, raw_gate_OID, gate_OID, weight_OIT = self._weights(
            aligned_OITD, local_OITD, mask_IT, dropout
        )
        unit_OID, inverse_OI1 = _unit(_weighted_sum(weight_OIT, aligned_OITD))
        gradients[5 + head].add_(torch.einsum("oi,oid->d", d_logit_OI, unit_OID))
        d_unit_OID = d_logit_OI[..., None] * weights[5 + head]
        along_OI1 = (d_unit_OID * unit_OID).sum(dim=-1, keepdim=True)
        d_sum_OID = (d_unit_OID - along_OI1 * unit_OID) * inverse_OI1

        (d_weight_OIT,) = _dots(aligned_OITD, d_sum_OID)
        mean_d_OI1 = (weight_OIT * d_weight_OIT).sum(dim=-1, keepdim=True)
        d_logits_OIT = weight_OIT * (d_weight_OIT - mean_d_OI1)
        (local_sum_OID,) = _weighted_sums(local_OITD, d_logits_OIT)
        d_weights.score.add_((local_sum_OID * gate_OID).sum(dim=(0, 1)))
        d_gate_OID = local_sum_OID * weights.score
        if dropout is not None:
            dropout.drop_pairs_(d_gate_OID).mul_(dropout.scale**2)
        d_raw_OID = d_gate_OID.mul_(1 - raw_gate_OID.square())
        d_mean_OID = d_raw_OID @ weights.global_weight
        d_weights.global_weight.addmm_(d_raw_OID.flatten(0, 1).T, mean_OID.flatten(0, 1))
        d_weights.global_bias.add_(d_raw_OID.sum(dim=(0, 1)))

        # The gradient of W_l a + b: the same direction for every token of a pair, but for tanh's
        # slope; 0 where dropped (where the slope of what is left, 1 - 0, would not be).
        dtype = aligned_OITD.dtype
        direction_OI1D = (gate_OID * weights.score)[:, :, None].to(dtype)
        d_local_OITD = torch.ops.aten.tanh_backward(
            direction_OI1D.expand_as(local_OITD), local_OITD
        )
        del local_OITD
        d_local_OITD.mul_(d_logits_OIT[..., None].to(dtype))
        if dropout is not None:
            dropout.drop_tokens_(d_local_OITD)
        flat_d_local, flat_aligned = d_local_OITD.flatten(0, 2), aligned_OITD.flatten(0, 2)
        d_weights.local_weight.add_(flat_d_local.T @ flat_aligned)
        d_weights.local_bias.add_(flat_d_local.sum(dim=0, dtype=d_weights.local_bias.dtype))

        mean_OIT = _mean_weights(mask_IT, d_mean_OID.dtype).expand_as(weight_OIT)
        d_aligned_OITD = _outer(
            torch.stack([weight_OIT, mean_OIT], dim=-1),
            torch.stack([d_sum_OID, d_mean_OID], dim=-2),
            dtype,
        )
        flat_d_aligned = d_aligned_OITD.flatten(0, 2)
        flat_d_aligned.addmm_(flat_d_local, weights.local_weight.to(dtype))
        del d_local_OITD, flat_d_local
        along_OIT = (d_aligned_OITD * aligned_OITD).sum(dim=-1, dtype=weight_OIT.dtype)
        return d_aligned_OITD, along_OIT


Aggregation: TypeAlias = PaperAggregation | AuthorsAggregation


def _mean_weights(mask_IT: Tensor, dtype: torch.dtype) -> Tensor:
    """1 over the number of real tokens, 0 on padding."""
    real_IT = mask_IT.to(dtype)
    return real_IT / real_IT.sum(dim=-1, keepdim=True).clamp(min=1)


def _softmax(logits_OIT: Tensor, mask_IT: Tensor) -> Tensor:
    """Over the real tokens; all zeros where there is none."""
    lowest = torch.finfo(logits_OIT.dtype).min
    weight_OIT = logits_OIT.masked_fill(~mask_IT, lowest).softmax(dim=-1)
    return weight_OIT.masked_fill(~mask_IT, 0.0)


def _unit(sums_OID: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors of length 1, and 1 over the lengths they had; zeros stay zeros."""
    length_OI1 = torch.linalg.vector_norm(sums_OID, dim=-1, keepdim=True)
    inverse_OI1 = torch.where(length_OI1 > 0, 1 / length_OI1, 0.0)
    return sums_OID * inverse_OI1, inverse_OI1


def _weighted_sums(values_OITD: Tensor, *weights_OIT: Tensor) -> tuple[Tensor, ...]:
    """Σ_t weight_t value_t of every pair, for each of the weights, in their dtype."""
    stacked_OIKT = torch.stack(weights_OIT, dim=-2).to(values_OITD.dtype)
    sums_OIKD = (stacked_OIKT @ values_OITD).to(weights_OIT[0].dtype)
    return sums_OIKD.unbind(dim=-2)


def _weighted_sum(weights_OIT: Tensor, values_OITD: Tensor) -> Tensor:
    return _weighted_sums(values_OITD, weights_OIT)[0]


def _dots(values_OITD: Tensor, *vectors_OID: Tensor) -> tuple[Tensor, ...]:
    """<value_t, vector> of every token with each of its pair's vectors, in their dtype."""
    stacked_OIDK = torch.stack(vectors_OID, dim=-1).to(values_OITD.dtype)
    return (values_OITD @ stacked_OIDK).to(vectors_OID[0].dtype).unbind(dim=-1)


def _outer(coefficients_OITK: Tensor, vectors_OIKD: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ_k coefficient_k vector_k of every token."""
    return coefficients_OITK.to(dtype) @ vectors_OIKD.to(dtype)
