"""Figures phrase by phrase: their means, and how far those of other studies might lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.profiles import Config

RESAMPLES = 1000


class ByPhrase(Config):
    """Of each phrase its study, and by metric its figure; None where it does not count."""

    study: tuple[int, ...]
    values: dict[str, tuple[float | None, ...]]

    def of(self, metric: str) -> NDArray[np.float64] | None:
        """A metric's figures, NaN where a phrase does not count; None when it has none."""
        found = self.values.get(metric)
        return None if found is None else np.array(found, dtype=np.float64)


def interval_over_studies(
    values: NDArray[np.float64], study: Sequence[int] | NDArray[np.int64]
) -> tuple[float, float]:
    """The ends of the 95 % interval of the mean of phrases, by bootstrap over studies.

    A study is drawn with all of its phrases, or not; values that are NaN do not count. Both ends
    are NaN where none counts.
    """
    kept = ~np.isnan(values)
    if not kept.any():
        return math.nan, math.nan
    _, number = np.unique(np.asarray(study)[kept], return_inverse=True)
    sums, counts = np.bincount(number, values[kept]), np.bincount(number)
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high
