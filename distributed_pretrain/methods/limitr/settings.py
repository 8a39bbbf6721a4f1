"""The settings of LIMITR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.data.settings import Reads, Views
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig, Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.limitr.method import Limitr


class LimitrConfig(MethodConfig):
    """The paper's full model; the joint space has the dimensions of the report encoder (768).

    `variant` is that of the pair similarity (see `LimitrSimilarity`). It also decides whether the
    losses of its two sides are added (`paper`, as the supplement writes) or averaged (`authors`),
    and what a missing lateral is: masked out (`paper`), or regions of 1e-8 that take part in
    everything as if they were real (`authors`). The authors' code itself leaves such regions out
    of the image side's aggregation, so that they only dilute the attentions; with a lateral it
    takes the mean alignment over the lateral's regions alone. Neither is repeated here.

    `lateral` and `position` are the paper's two switches, both off in the authors' profile.
    `upsample_px` is the side to which images are stretched, null for none; `last_layers` are the
    report encoder's layers whose hidden states are added. `external_negatives` are of the own rank
    (`local`), whatever the accumulation, or of all ranks (`global`): see `Limitr`.
    `internal_reduction: sum` is eq 6 to the letter, N times the mean, and with `internal_weights:
    learned` tokens count by the aggregation's q in place of 1/N. `chunk_size` pairs are compared
    at a time (null: by the memory there is).
    """

    name: Literal["limitr"] = "limitr"
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    variant: Variant = "paper"
    lateral: bool = True
    position: bool = True
    upsample_px: PositiveInt | None = 299
    last_layers: PositiveInt = 4
    temperature: PositiveFloat = 0.1
    global_weight: NonNegativeFloat = 1.0
    external_weight: NonNegativeFloat = 1.0
    internal_weight: NonNegativeFloat = 1.0
    external_negatives: Literal["local", "global"] = "local"
    internal_reduction: Literal["mean", "sum"] = "mean"
    internal_weights: Literal["uniform", "learned"] = "uniform"
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        views: Views = "frontal_lateral" if self.lateral else "frontal"
        return Reads(views=views, text_policy="limitr", sentence_swaps=False, max_tokens=97)

    def build(self, sizes: Sizes) -> Limitr:
        """The method."""
        from distributed_pretrain.methods.limitr.method import Limitr

        return Limitr(
            self,
            self.image_encoder.build(),
            self.image_encoder.build() if self.lateral else None,
            self.report_encoder.build(sizes.vocabulary),
        )
