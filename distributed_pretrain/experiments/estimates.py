"""What many runs are worth: means with 95% intervals, and whether a difference is one.

Nothing here needs torch: the launcher shows sweeps by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from distributed_pretrain.measures.metric import Metric

Verdict = Literal["holds", "within noise", "does not hold", "not yet run"]
# Student's t, 97.5 %, of 1 to 30 degrees of freedom.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Estimate:
    """A mean with half the width of its 95% confidence interval, None for a single value."""

    mean: float
    half_width: float | None

    def show(self, metric: Metric | None = None) -> str:
        """Mean ± half the interval, in the metric's unit (per cent without its sign).

        Without a metric, as in files: the mean with four digits, the interval with two.
        """
        numbers = [(self.mean, ".4g")]
        if self.half_width is not None:
            numbers.append((self.half_width, ".2g"))
        if metric is not None:
            numbers = [(metric.scale * each, f".{metric.digits}f") for each, _ in numbers]
        return " ± ".join(format(*each) for each in numbers)

    def show_difference(self, metric: Metric) -> str:
        """The same with its sign, in percentage points for fractions."""
        sign = "+" if self.mean >= 0 else ""
        return f"{sign}{self.show(metric)}{' points' if metric.unit == 'fraction' else ''}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± t std(ddof=1) / sqrt(n), t of n - 1 degrees of freedom; at least one value.

    LoVT's tables take 1.96 in place of t, which for its five runs should be 2.78.
    """
    freedom = len(values) - 1
    half_width = student(freedom) * stdev(values) / math.sqrt(len(values)) if freedom else None
    return Estimate(fmean(values), half_width)


def normal_half_width(values: Sequence[float]) -> float | None:
    """LoVT's half interval, 1.96 std(ddof=1) / sqrt(n), too narrow for few runs; None of one."""
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t: within ± that lie 95 %."""
    # Beyond the table the first terms of its series by 1 / freedom: wrong by less than 0.003.
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.372 / freedom


def paired_difference(better: Mapping[int, float], worse: Mapping[int, float]) -> Estimate | None:
    """`better` less `worse`, seed by seed; None without a common seed."""
    common = sorted(better.keys() & worse.keys())
    return estimate([better[seed] - worse[seed] for seed in common]) if common else None


def verdict_of(difference: Estimate, metric: Metric) -> Verdict:
    """Whether a difference of `metric`, expected to be for the better, is.

    `within noise`: its interval holds 0, or there is none, of a single seed.
    """
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return "within noise"
    return "holds" if metric.gain(difference.mean) > 0 else "does not hold"
