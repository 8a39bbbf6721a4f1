"""MGCA's prototypes: soft assignment by Sinkhorn over all ranks, and swapped prediction."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.losses.precision import full_precision, unit_vectors, zero_where_padded
from distributed_pretrain.ranks import mean_over_samples, sum_over_ranks

# B batch, K prototypes, D dim; M = 2 modalities, image and report.


@torch.no_grad()
def sinkhorn(
    similarity: Float[Tensor, "*sets batch prototypes"],
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, "*sets batch prototypes"]:
    """Soft assignments of samples to prototypes; every real sample's sum to 1, without gradient.

    Sinkhorn and Knopp's iterations on e^{similarity / ε} (Cuturi 2013, as in SwAV), over the
    samples of all ranks together: each iteration first gives every prototype the same share of
    all samples, then every sample the sum 1. After infinitely many both would hold; with few the
    samples' sums do. `similarity` are cosines; any further leading dimensions are problems of
    their own that share the exchange between ranks, one all-reduce of `prototypes` numbers an
    iteration.

    Samples whose `sample_mask` is False count nowhere and get 0. Computed in float64 (e^{2/ε} must
    not overflow), for ε down to 0.005.
    """
    # The same factor for all entries changes nothing, so the largest cosine may become e^0.
    weights = ((similarity.double() - 1) / epsilon).exp()
    real = None if sample_mask is None else sample_mask.expand(similarity.shape[:-1])
    weights = zero_where_padded(weights, real)
    for _ in range(iterations):
        # A prototype's share, samples / K, is the same for all: normalising the samples next
        # cancels it.
        weights = weights / sum_over_ranks(weights.sum(dim=-2, keepdim=True))
        weights = weights / weights.sum(dim=-1, keepdim=True)
        weights = zero_where_padded(weights, real)
    return weights.to(similarity.dtype)


def prototype_loss(
    image: Float[Tensor, "batch dim"],
    report: Float[Tensor, "batch dim"],
    prototypes: Float[Tensor, "prototypes dim"],
    *,
    temperature: float = 0.2,
    epsilon: float = 0.05,
    iterations: int = 3,
    frozen: bool = False,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """MGCA's cross-modal prototype alignment (Wang et al. 2022), at least 0.

    The mean over samples of (H(q^R, p^I) + H(q^I, p^R)) / 2 with H(q, p) = -Σ_k q_k ln p_k:
    an image predicts its report's assignment to the prototypes and the other way round. p =
    softmax over the prototypes of cosine / τ; q are the assignments of `sinkhorn` over the batch
    of all ranks, each modality by itself and without gradient.

    Prototypes are compared by their direction, so their lengths never matter (the authors reset
    them to 1 before each step). `frozen`, for the first epoch, gives the prototypes a gradient of
    zeros: DDP would wait in vain for none.
    """
    with full_precision(image):
        directions_KD = unit_vectors(prototypes)
        if frozen:
            directions_KD = directions_KD.detach() + 0 * directions_KD
        both_MBD = torch.stack([unit_vectors(each, sample_mask) for each in (image, report)])
        similarity_MBK = both_MBD @ directions_KD.T
        assignments_MBK = sinkhorn(
            similarity_MBK.detach(),
            epsilon=epsilon,
            iterations=iterations,
            sample_mask=sample_mask,
        )
        log_prediction_MBK = F.log_softmax(similarity_MBK / temperature, dim=-1)
        # Swapped: the image's assignments (0) are what the report (1) has to predict.
        cross_entropy_MB = -(assignments_MBK.flip(0) * log_prediction_MBK).sum(dim=-1)
        return mean_over_samples(cross_entropy_MB.mean(dim=0), sample_mask)
