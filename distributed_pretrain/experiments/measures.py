"""The figures that a comparison tells, and how they are printed."""

from __future__ import annotations

from dataclasses import dataclass

from distributed_pretrain.experiments.statistics import Estimate


@dataclass(frozen=True)
class Measure:
    """A metric of `evaluate`; fractions are shown in per cent, others with two digits."""

    key: str
    title: str
    is_fraction: bool = True

    def show(self, value: float) -> str:
        """The value alone."""
        return f"{100 * value:.1f} %" if self.is_fraction else f"{value:.2f}"

    def show_estimate(self, estimate: Estimate) -> str:
        """Mean ± half the interval, in the measure's unit (per cent without its sign)."""
        scale, digits = (100, 1) if self.is_fraction else (1, 2)
        mean = f"{scale * estimate.mean:.{digits}f}"
        if estimate.half_width is None:
            return mean
        return f"{mean} ± {scale * estimate.half_width:.{digits}f}"

    def show_difference(self, difference: Estimate) -> str:
        """The same with its sign, in percentage points for fractions."""
        sign = "+" if difference.mean >= 0 else ""
        return f"{sign}{self.show_estimate(difference)}{' points' if self.is_fraction else ''}"


RECALL_AT_1 = Measure("recall_at_1", "R@1")
RECALL_AT_5 = Measure("recall_at_5", "R@5")
GROUNDING_CNR = Measure("grounding_cnr", "grounding CNR", is_fraction=False)
LINEAR_DICE = Measure("linear_dice", "linear Dice")
LINEAR_AUROC = Measure("linear_auroc", "linear AUROC")

TABLE = (RECALL_AT_1, RECALL_AT_5, GROUNDING_CNR, LINEAR_DICE, LINEAR_AUROC)
LOCALIZED = (LINEAR_DICE, GROUNDING_CNR)
