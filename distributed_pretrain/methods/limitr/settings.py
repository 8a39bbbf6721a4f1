"""The settings of LIMITR."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat

from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.methods.words.settings import WordsConfig

if TYPE_CHECKING:
    from distributed_pretrain.methods.limitr.method import Limitr


class LimitrConfig(WordsConfig):
    """The paper's full model.

    `variant` is that of the pair similarity (see `LimitrSimilarity`). It also decides whether the
    losses of its two sides are added (`paper`, as the supplement writes) or averaged (`authors`),
    and what a missing lateral is: masked out (`paper`), or regions of 1e-8 that take part in
    everything as if they were real (`authors`). The authors' code itself leaves such regions out
    of the image side's aggregation, so that they only dilute the attentions; with a lateral it
    takes the mean alignment over the lateral's regions alone. Neither is repeated here.

    `lateral` and `position` are the paper's two switches, both off in the authors' profile.
    `internal_reduction: sum` is eq 6 to the letter, N times the mean, and with `internal_weights:
    learned` tokens count by the aggregation's q in place of 1/N.
    """

    READS: ClassVar[Reads] = Reads(text_policy="limitr", sentence_swaps=False, max_tokens=97)

    name: Literal["limitr"] = "limitr"
    variant: Variant = "paper"
    lateral: bool = True
    position: bool = True
    external_weight: NonNegativeFloat = 1.0
    internal_weight: NonNegativeFloat = 1.0
    internal_reduction: Literal["mean", "sum"] = "mean"
    internal_weights: Literal["uniform", "learned"] = "uniform"

    @property
    def reads(self) -> Reads:
        """What it reads of a study: laterals only where it has an encoder for them."""
        return replace(self.READS, views="frontal_lateral") if self.lateral else self.READS

    def build(self, sizes: Sizes) -> Limitr:
        """The method."""
        from distributed_pretrain.methods.limitr.method import Limitr

        return Limitr(
            self,
            self.image_encoder.build(),
            self.image_encoder.build() if self.lateral else None,
            self.report_encoder.build(sizes.vocabulary),
        )
