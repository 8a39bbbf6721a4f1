"""LoVT's alignment: sentences from regions and regions from sentences (eqs 1-2)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import without_columns, zero_where_padded
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.rows import row_norm

Regions: TypeAlias = Float[Tensor, "batch regions dim"]
Sentences: TypeAlias = Float[Tensor, "batch sentences dim"]

# B batch, R regions, S sentences, D dim.


class Alignment(NamedTuple):
    """Cross-modal representations; those of padded sentences mean nothing."""

    regions_from_report: Regions
    sentences_from_image: Sentences


class LovtAlignment(nn.Module):
    """Single-head attention in both directions with shared matrices Q, V and O.

    Q projects queries and keys alike, scores are divided by sqrt(dim). Two deviations of the
    authors' code are switches: `bias` on Q, V and O, and `output_norm`, one norm after O for both
    directions (so the running statistics of a batch norm mix the two); with both on and 512
    dimensions there are 788,992 parameters.
    """

    def __init__(
        self, dim: int = 512, *, bias: bool = False, output_norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.norm = None if output_norm is None else row_norm(output_norm, dim)
        for linear in (self.query, self.value, self.output):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="linear")
            if bias:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        regions: Regions,
        sentences: Sentences,
        sentence_mask: Bool[Tensor, "batch sentences"],
        sample_mask: Bool[Tensor, " batch"] | None = None,
    ) -> Alignment:
        """Eqs 1 and 2. Padded sentences (mask False) are never attended to.

        `sample_mask` (True = real) matters to the norm alone: other rows leave its statistics.
        """
        sentences_BSD = zero_where_padded(sentences, sentence_mask)
        query_BSD, key_BRD = self.query(sentences_BSD), self.query(regions)
        scores_BSR = query_BSD @ key_BRD.mT * regions.shape[-1] ** -0.5
        to_region_BSR = scores_BSR.softmax(dim=2)
        to_sentence_BRS = without_columns(scores_BSR.mT, sentence_mask[:, None]).softmax(dim=2)

        values_BRD, values_BSD = self.value(regions), self.value(sentences_BSD)
        sentences_from_image_BSD = self.output(to_region_BSR.to(values_BRD.dtype) @ values_BRD)
        regions_from_report_BRD = self.output(to_sentence_BRS.to(values_BSD.dtype) @ values_BSD)
        if self.norm is not None:
            region_mask = None
            if sample_mask is not None:
                region_mask = sample_mask[:, None].expand(regions.shape[:2])
            regions_from_report_BRD = self.norm(regions_from_report_BRD, region_mask)
            sentences_from_image_BSD = self.norm(sentences_from_image_BSD, sentence_mask)
        return Alignment(regions_from_report_BRD, sentences_from_image_BSD)

    def sentence_from_region(self, regions: Regions) -> Regions:
        """Eq 2 for an attention that rests on one region, for each region: O V z_r."""
        from_region: Tensor = self.output(self.value(regions))
        return from_region if self.norm is None else self.norm(from_region)
