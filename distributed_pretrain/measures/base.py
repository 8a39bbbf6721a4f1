"""What validation and evaluation ask of a measure: one file each, listed in the catalogue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from data_shards.errors import InputError
from data_shards.records.policies import TextPolicy, select_sentences
from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.prompts import ClassPrompts
from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
from distributed_pretrain.methods.objective import Objective, Outputs

Picture: TypeAlias = NDArray[np.uint8]
EncodeReports: TypeAlias = Callable[[Sequence[Sequence[str]]], ReportTokens]
ReadMember: TypeAlias = Callable[[StudyRecord, str], bytes]


@dataclass(frozen=True, kw_only=True)
class FeatureOutputs(Outputs):
    """What evaluation reads of any encoder: its last feature map, of frozen weights."""

    feature_map: Float[Tensor, "batch channels rows columns"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What measures may ask for besides batches and outputs.

    `labels`, `masks` and `boxes` are the classes that are predicted. Images show the middle
    `crop_fraction` (of its side) of their padded square. A head is fitted to `labelled_studies` at
    a time. `encode` makes tokens of reports; `read` gives a stored member (a mask) of a study;
    `boxed_training` all training studies with boxes, without their images. `prompts` are the
    sentences of each class that is to be told by them. `thorough` is what an
    evaluation is and a validation in the loop is not.
    """

    objective: Objective
    device: torch.device
    text_policy: TextPolicy = "lovt"
    labels: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    crop_fraction: float = 1.0
    labelled_studies: int = 600
    seed: int = 0
    thorough: bool = False
    encode: EncodeReports | None = None
    read: ReadMember | None = None
    boxed_training: Callable[[], Sequence[StudyRecord]] = tuple
    prompts: Mapping[str, ClassPrompts] = field(default_factory=dict)

    def sentences(self, record: StudyRecord) -> tuple[str, ...]:
        """The sentences of a study's report that the text policy keeps."""
        return select_sentences(record.report, self.text_policy)


class Measure(ABC):
    """Numbers of one kind, over all samples of a split and all ranks.

    Every rank makes the same calls: `update` for each batch with what the objective makes of it,
    then `compute`, then perhaps `pictures`; in evaluation mode and without gradient. A new one is
    made for each pass. `picture_notes` say of the pictures, by name, what there is to see.
    """

    picture_notes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Whether the objective's outputs have what this reads; by default any have."""
        return True

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What `compute` may give; a split can lack some (a label without positives, say)."""
        return ()

    def learn(self, batch: Batch, outputs: Any) -> None:
        """Take in training studies, in an evaluation; all of them come before any `update`."""
        del batch, outputs

    @abstractmethod
    def update(self, batch: Batch, outputs: Any) -> None:
        """Take in one batch; rows whose `sample_mask` is False count nowhere."""

    def compute(self) -> dict[str, float]:
        """The numbers by the names of `metrics`, the same on every rank."""
        return {}

    def pictures(self) -> dict[str, Picture]:
        """What there is to see, (height, width, 3) by name."""
        return {}


class ImageTextMeasure(Measure):
    """A measure of a `method` whose images and reports can be compared."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        assert isinstance(context.objective, ImageTextMethod)
        self.method = context.objective

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where images and reports are embedded."""
        return isinstance(objective, ImageTextMethod)


class OfFirstBatch(ImageTextMeasure):
    """Pictures of the `first` batch and what was made of it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.first: tuple[Batch, ImageTextOutputs] | None = None

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the first batch."""
        if self.first is None:
            self.first = batch, outputs


def make_measures(kinds: Sequence[type[Measure]], context: Context) -> list[Measure]:
    """Those of the kinds that apply to the context's objective.

    Raises InputError where classes are called so that two figures would have one name.
    """
    measures = [kind(context) for kind in kinds if kind.applies(context.objective)]
    titles: dict[str, list[str]] = {}
    for metric in chain.from_iterable(measure.metrics for measure in measures):
        titles.setdefault(metric.name, []).append(metric.title)
    for name, called in titles.items():
        if len(called) > 1:
            raise InputError(
                f"two figures would be called {name!r} ({' and '.join(called)}): give the label, "
                "mask or boxes of that class another name in the shards, or leave it out of data"
            )
    return measures


def on_host(values: Tensor) -> Tensor:
    """On the CPU, in float32 where they are floating-point numbers."""
    return (values.float() if values.is_floating_point() else values).cpu()


def real_rows(values: Tensor, sample_mask: Tensor) -> Tensor:
    """The real samples' rows, `on_host`."""
    return on_host(values[sample_mask])


def real_records(batch: Batch) -> list[StudyRecord]:
    """What the shards know of the real samples."""
    real = zip(batch.records, batch.sample_mask.tolist(), strict=True)
    return [record for record, kept in real if kept]
