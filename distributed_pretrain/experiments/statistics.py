"""Means over seeds, their 95% confidence intervals, and what differences are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

Verdict = Literal["holds", "within noise", "does not hold", "not yet run"]


@dataclass(frozen=True)
class Estimate:
    """A mean with half the width of its 95% confidence interval, None for a single value."""

    mean: float
    half_width: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± 1.96 std(ddof=1) / sqrt(n), as LoVT's tables have it; at least one value.

    For three runs that is optimistic: Student's t would give 4.30 in place of 1.96.
    """
    half_width = 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(fmean(values), half_width, len(values))


def paired_difference(better: Mapping[int, float], worse: Mapping[int, float]) -> Estimate | None:
    """By how much `better` exceeds `worse`, seed by seed; None without a common seed."""
    common = sorted(better.keys() & worse.keys())
    return estimate([better[seed] - worse[seed] for seed in common]) if common else None


def verdict_of(difference: Estimate | None) -> Verdict:
    """Whether a difference that is expected to be positive is.

    `within noise`: its interval holds 0, or there is none, of a single seed.
    """
    if difference is None:
        return "not yet run"
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return "within noise"
    return "holds" if difference.mean > 0 else "does not hold"
