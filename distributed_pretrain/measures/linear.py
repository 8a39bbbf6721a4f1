"""What the linear protocols share: a head on frozen features, fitted to labelled studies."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch, SampleRows
from distributed_pretrain.measures.base import (
    Context,
    FeatureOutputs,
    Measure,
    real_records,
    real_rows,
)
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.ranks import gather_objects


@dataclass
class Studies:
    """The features of studies and, by class, what is known of each."""

    features: list[Tensor] = field(default_factory=list)
    known: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of which any study knows something, sorted."""
        return tuple(sorted({name for each in self.known for name in each}))


@dataclass(frozen=True)
class LinearSet(SampleRows):
    """Features of frozen images, and what a head is to make of them.

    Targets are labels (1, 0, or NaN where unknown), or masks of the images.
    """

    features: Float[Tensor, "samples channels ..."]
    targets: Shaped[Tensor, "samples classes ..."]


class LinearMeasure(Measure):
    """The mean over sets of `labelled_studies`, without a study in common, of a head's metric."""

    metric: ClassVar[Metric]
    unknown: ClassVar[float]  # the target of a class of which nothing is known

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.labelled, self.judged = Studies(), Studies()

    @property
    def classes(self) -> tuple[str, ...]:
        """What the head tells: all that the labelled studies know."""
        return self.labelled.classes

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The mean over classes, and that of each."""
        return self.metric.of_each(self.classes)

    def learn(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep labelled features; all of these come before the first `update`."""
        self._keep(batch, outputs, self.labelled)

    def update(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep the features to judge."""
        self._keep(batch, outputs, self.judged)

    def compute(self) -> dict[str, float]:
        """The mean and that of each class; empty where either side knows nothing."""
        classes = self.classes
        if not classes or not self.judged.classes:
            return {}
        training, test = (self._set_of(each, classes) for each in (self.labelled, self.judged))
        # Whole sets; a single smaller one where there are fewer studies.
        size = self.context.labelled_studies
        starts = range(0, max(len(training.features) - size, 0) + 1, size)
        by_subset = [self.judge(training.rows(slice(each, each + size)), test) for each in starts]
        return self.metric.mean_and_each(classes, torch.stack(by_subset).mean(dim=0).tolist())

    def features_of(self, feature_map: Tensor) -> Tensor:
        """What the head reads of feature maps."""
        return feature_map

    @abstractmethod
    def known_of(self, record: StudyRecord) -> dict[str, Tensor]:
        """The target of each class that a study, whose image has `size_px`, knows something of."""

    @abstractmethod
    def judge(self, training: LinearSet, test: LinearSet) -> Float[Tensor, " classes"]:
        """The metric of each class on `test`, by a head fitted to `training`."""

    def _keep(self, batch: Batch, outputs: FeatureOutputs, studies: Studies) -> None:
        self.size_px = batch.images.shape[-1]
        own = self.features_of(real_rows(outputs.feature_map, batch.sample_mask))
        # Of all ranks, in the order of one process: each fits the same head.
        known = [self.known_of(record) for record in real_records(batch)]
        for each_features, each_known in gather_objects((own, known)):
            studies.features.append(each_features)
            studies.known += each_known

    def _set_of(self, studies: Studies, classes: tuple[str, ...]) -> LinearSet:
        example = next(target for known in studies.known for target in known.values())
        unknown = torch.full_like(example, self.unknown)
        targets = [
            torch.stack([known.get(name, unknown) for name in classes]) for known in studies.known
        ]
        return LinearSet(torch.cat(studies.features), torch.stack(targets))
