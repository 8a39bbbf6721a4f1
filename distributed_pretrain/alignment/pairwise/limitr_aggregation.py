"""LIMITR's aggregations: the local alignments of a pair become one score (eqs 4-5).

Forward and backward are written out. The local alignments of a block of pairs are by far the
largest tensors of the method, and a chain of recorded operations would go over them, and keep
them, several times as often.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.pairwise.dropout import PairDropout
from distributed_pretrain.alignment.pairwise.memory import Scratch
from distributed_pretrain.alignment.pairwise.products import masked_softmax

# O images or reports that are attended, I reports or images that attend, T words or regions
# of these, D dim. A pair is one O and one I. A local alignment is a = p / |p| with p = m o t.


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
class LocalAlignments:
    """One direction of a block: p (O I T D), 1 / |p| (O I T, 0 for zeros), the mask I T of t.

    `head`: 0 for the words' direction (reports attend), 1 for the regions'.
    """

    products: Tensor
    inverse: Tensor
    mask: Tensor
    head: int
    dropout: PairDropout | None = None

    def normalise_(self) -> LocalAlignments:
        """The same with a in the place of p, which is lost."""
        self.products.mul_(self.inverse.to(self.products.dtype)[..., None])
        return replace(self, inverse=torch.ones_like(self.inverse))


@dataclass(frozen=True)
class Aggregated:
    """Each pair's logit (O I), its tokens' weights q (O I T), and what backward wants to know.

    None of it is as large as the alignments but the tokens' gates, which are there if asked for.
    """

    logits: Tensor
    token_weights: Tensor
    kept: tuple[Tensor, ...]
    gates: Tensor | None = None


@dataclass(frozen=True)
class PaperAggregation:
    """Eqs 4-5: a dot-product attention of the mean alignment, folded.

    (W_q ā)·(W_k a_t) = (W_kᵀ W_q ā)·a_t and head·Σ q_t W_v a_t = Σ q_t (W_vᵀ head)·a_t, so every
    token meets a few vectors of its pair instead of two matrices.
    """

    weights: PaperWeights

    def forward(self, local: LocalAlignments, *, kept_gates: Tensor | None = None) -> Aggregated:
        """Logits and weights of every pair. There are no gates."""
        assert kept_gates is None
        assert local.dropout is None, "the equations have none"
        (mean_OID,) = _weighted_sums(local, _mean_weights(local))
        query_OID = mean_OID @ self.weights.key_query
        head_OID = self.weights[1 + local.head].expand_as(query_OID)
        scores_OIT, values_OIT = _dots(local, query_OID, head_OID)
        weights_OIT = _masked_softmax(scores_OIT, local.mask)
        logits_OI = (weights_OIT * values_OIT).sum(dim=-1)
        return Aggregated(logits_OI, weights_OIT, (mean_OID, query_OID, scores_OIT, values_OIT))

    def backward(
        self,
        local: LocalAlignments,
        aggregated: Aggregated,
        d_logits_OI: Tensor,
        gradients: list[Tensor],
    ) -> Tensor:
        """The gradient of the products, which it overwrites; the weights' is added in place."""
        mean_OID, query_OID, scores_OIT, values_OIT = aggregated.kept
        weights_OIT, head_OID = aggregated.token_weights, self.weights[1 + local.head]
        d_values_OIT = d_logits_OI[..., None] * weights_OIT
        d_scores_OIT = d_values_OIT * (values_OIT - aggregated.logits[..., None])
        d_query_OID, d_head_OID = _weighted_sums(local, d_scores_OIT, d_values_OIT)
        d_mean_OID = d_query_OID @ self.weights.key_query.T
        gradients[0].addmm_(mean_OID.flatten(0, 1).T, d_query_OID.flatten(0, 1))
        gradients[1 + local.head].add_(d_head_OID.sum(dim=(0, 1)))
        mean_weights_OIT = _mean_weights(local).expand_as(weights_OIT)
        (d_mean_dots_OIT,) = _dots(local, d_mean_OID)

        # The gradient of a is a sum of three vectors of its pair. Through a = p / |p| what points
        # along a is lost, and the rest divided by |p|.
        along_OIT = d_scores_OIT * scores_OIT + d_values_OIT * values_OIT
        along_OIT += mean_weights_OIT * d_mean_dots_OIT
        factors_OIKT = torch.stack([d_scores_OIT, d_values_OIT, mean_weights_OIT], dim=-2)
        vectors_OIKD = torch.stack([query_OID, head_OID.expand_as(query_OID), d_mean_OID], dim=-2)
        dtype = local.products.dtype
        local.products.mul_((-along_OIT * local.inverse.square()).to(dtype)[..., None])
        factors_OITK = (factors_OIKT * local.inverse[..., None, :]).to(dtype).mT
        local.products.flatten(0, 1).baddbmm_(
            factors_OITK.flatten(0, 1), vectors_OIKD.to(dtype).flatten(0, 1)
        )
        return local.products


@dataclass(frozen=True)
class AuthorsAggregation:
    """The authors' gate: q = softmax_t(w (l_t o g)), l_t = tanh(W_l a_t + b), g = tanh(W_g ā + b).

    The logit is the head's of the normalised Σ q_t a_t. Dropout acts on l and g.
    """

    weights: AuthorsWeights
    scratch: Scratch

    def forward(self, local: LocalAlignments, *, kept_gates: Tensor | None = None) -> Aggregated:
        """Logits and weights of every pair. Overwrites the products; gates may be kept."""
        local = local.normalise_()
        (mean_OID,) = _weighted_sums(local, _mean_weights(local))
        raw_gate_OID = F.linear(mean_OID, self.weights.global_weight, self.weights.global_bias)
        raw_gate_OID.tanh_()
        gate_OID = self._dropped_gate(raw_gate_OID, local.dropout)
        gates_OITD = kept_gates
        if gates_OITD is None:
            gates_OITD = self.scratch.place("gates", tuple(local.products.shape))
        self._write_local_gates(local, gates_OITD)
        direction_OID1 = (gate_OID * self.weights.score).to(gates_OITD.dtype)[..., None]
        scores_OIT = (gates_OITD @ direction_OID1)[..., 0].to(gate_OID.dtype)
        weights_OIT = _masked_softmax(scores_OIT, local.mask)
        (sum_OID,) = _weighted_sums(local, weights_OIT)
        length_OI1 = torch.linalg.vector_norm(sum_OID, dim=-1, keepdim=True)
        inverse_OI1 = torch.where(length_OI1 > 0, 1 / length_OI1, 0.0)
        unit_OID = sum_OID * inverse_OI1
        kept = mean_OID, raw_gate_OID, unit_OID, inverse_OI1
        logits_OI = unit_OID @ self.weights[5 + local.head]
        return Aggregated(logits_OI, weights_OIT, kept, kept_gates)

    def _write_local_gates(self, local: LocalAlignments, gates_OITD: Tensor) -> None:
        """tanh(W_l a + b) of every token; dropped numbers are 0, the others not yet scaled."""
        unit_OITD = local.products
        weight, bias = (each.to(unit_OITD.dtype) for each in self.weights[:2])
        torch.addmm(bias, unit_OITD.flatten(0, 2), weight.T, out=gates_OITD.flatten(0, 2))
        gates_OITD.tanh_()
        if local.dropout is not None:
            local.dropout.drop_tokens_(gates_OITD)

    def _dropped_gate(self, raw_gate_OID: Tensor, dropout: PairDropout | None) -> Tensor:
        if dropout is None:
            return raw_gate_OID
        # Scaled for both factors: the tokens' are a hundred times as many numbers.
        return dropout.drop_pairs_(raw_gate_OID.clone()).mul_(dropout.scale**2)

    def backward(
        self,
        local: LocalAlignments,
        aggregated: Aggregated,
        d_logits_OI: Tensor,
        gradients: list[Tensor],
    ) -> Tensor:
        """The gradient of the products, which are lost; the weights' is added in place."""
        weights, d_weights = self.weights, AuthorsWeights(*gradients)
        inverse_OIT, local = local.inverse, local.normalise_()
        mean_OID, raw_gate_OID, unit_OID, inverse_OI1 = aggregated.kept
        weights_OIT = aggregated.token_weights
        gate_OID = self._dropped_gate(raw_gate_OID, local.dropout)
        gradients[5 + local.head].add_(torch.einsum("oi,oid->d", d_logits_OI, unit_OID))
        d_unit_OID = d_logits_OI[..., None] * weights[5 + local.head]
        along_OI1 = (d_logits_OI * aggregated.logits)[..., None]
        d_sum_OID = (d_unit_OID - along_OI1 * unit_OID) * inverse_OI1

        (d_weights_OIT,) = _dots(local, d_sum_OID)
        mean_d_OI1 = (weights_OIT * d_weights_OIT).sum(dim=-1, keepdim=True)
        d_scores_OIT = weights_OIT * (d_weights_OIT - mean_d_OI1)
        unit_OITD = local.products
        shape, dtype = tuple(unit_OITD.shape), unit_OITD.dtype
        d_gates_OITD = self.scratch.place("gates", shape)
        gates_OITD = aggregated.gates
        if gates_OITD is None:
            gates_OITD = d_gates_OITD
            self._write_local_gates(local, gates_OITD)
        gate_sum_OI1D = d_scores_OIT.to(dtype)[:, :, None] @ gates_OITD
        gate_sum_OID = gate_sum_OI1D[:, :, 0].to(gate_OID.dtype)
        d_weights.score.add_((gate_sum_OID * gate_OID).sum(dim=(0, 1)))
        d_gate_OID = self._dropped_gate(gate_sum_OID * weights.score, local.dropout)
        d_gate_OID = d_gate_OID * (1 - raw_gate_OID.square())
        d_weights.global_weight.addmm_(d_gate_OID.flatten(0, 1).T, mean_OID.flatten(0, 1))
        d_weights.global_bias.add_(d_gate_OID.sum(dim=(0, 1)))
        d_mean_OID = d_gate_OID @ weights.global_weight

        # The gradient of W_l a + b: the same direction for every token of a pair, but for the
        # slope of tanh.
        direction_OI1D = (gate_OID * weights.score).to(dtype)[:, :, None]
        torch.ops.aten.tanh_backward.grad_input(
            direction_OI1D.expand_as(gates_OITD), gates_OITD, grad_input=d_gates_OITD
        )
        d_gates_OITD.mul_(d_scores_OIT.to(dtype)[..., None])
        if local.dropout is not None:
            local.dropout.drop_tokens_(d_gates_OITD)
        flat_d_gates, flat_unit = d_gates_OITD.flatten(0, 2), unit_OITD.flatten(0, 2)
        d_weights.local_weight.add_(flat_d_gates.T @ flat_unit)
        d_weights.local_bias.add_(flat_d_gates.sum(dim=0, dtype=d_weights.local_bias.dtype))

        factors_OITK = torch.stack([weights_OIT, _mean_weights(local).expand_as(weights_OIT)], -1)
        vectors_OIKD = torch.stack([d_sum_OID, d_mean_OID], dim=-2)
        d_unit_OITD = self.scratch.place("d_unit", shape)
        torch.bmm(
            factors_OITK.to(dtype).flatten(0, 1),
            vectors_OIKD.to(dtype).flatten(0, 1),
            out=d_unit_OITD.flatten(0, 1),
        )
        d_unit_OITD.flatten(0, 2).addmm_(flat_d_gates, weights.local_weight.to(dtype))
        # Through a = p / |p|.
        along_OITD = torch.mul(d_unit_OITD, unit_OITD, out=d_gates_OITD)
        along_OIT = along_OITD.sum(dim=-1, dtype=weights_OIT.dtype)
        d_unit_OITD.addcmul_(unit_OITD, -along_OIT.to(dtype)[..., None])
        return d_unit_OITD.mul_(inverse_OIT.to(dtype)[..., None])


Aggregation: TypeAlias = PaperAggregation | AuthorsAggregation


def aggregation_of(weights: PaperWeights | AuthorsWeights, scratch: Scratch) -> Aggregation:
    """The aggregation that these are the weights of."""
    if isinstance(weights, PaperWeights):
        return PaperAggregation(weights)
    return AuthorsAggregation(weights, scratch)


def _mean_weights(local: LocalAlignments) -> Tensor:
    """I T: 1 over the number of real tokens, 0 on padding."""
    real_IT = local.mask.to(local.inverse.dtype)
    return real_IT / real_IT.sum(dim=-1, keepdim=True).clamp(min=1)


def _masked_softmax(scores_OIT: Tensor, mask_IT: Tensor) -> Tensor:
    """Over the real tokens; all zeros where there is none."""
    return masked_softmax(scores_OIT, mask_IT, -1).masked_fill_(~mask_IT, 0.0)


def _weighted_sums(local: LocalAlignments, *weights: Tensor) -> tuple[Tensor, ...]:
    """Σ_t weight_t a_t of every pair, O I D, for each of the weights, which broadcast to O I T."""
    weights_OIKT = torch.stack([each * local.inverse for each in weights], dim=-2)
    sums_OIKD = weights_OIKT.to(local.products.dtype) @ local.products
    return sums_OIKD.to(local.inverse.dtype).unbind(dim=-2)


def _dots(local: LocalAlignments, *vectors_OID: Tensor) -> tuple[Tensor, ...]:
    """<a_t, vector> of every token, O I T, with each of its pair's vectors."""
    vectors_OIDK = torch.stack(vectors_OID, dim=-1).to(local.products.dtype)
    dots_OITK = (local.products @ vectors_OIDK).to(local.inverse.dtype)
    return (dots_OITK * local.inverse[..., None]).unbind(dim=-1)
