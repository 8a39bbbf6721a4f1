"""Findings told by prompts alone: no label is learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.area_under_roc import area_under_roc
from distributed_pretrain.measures.base import Context, ImageTextMeasure, on_host, real_records
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.image_text import ImageTextOutputs, ReportEmbeddings
from distributed_pretrain.ranks import gather_objects, gather_rows

ZERO_SHOT_AUROC = Metric("zero_shot_auroc", "zero-shot AUROC")
CLASS_ACCURACY = Metric("class_accuracy", "zero-shot accuracy of the class")
RANKS = (5, 10)
CLASS_PRECISIONS = {k: Metric(f"class_precision_at_{k}", f"class retrieval P@{k}") for k in RANKS}
# CheXpert 5x200: images that show one class and nothing else, so many of each.
IMAGES_A_CLASS = 200
NO_FINDING = "No Finding"

Labels = Mapping[str, float | None]


class ZeroShot(ImageTextMeasure):
    """Images against the prompts of each class; without prompts there is no number.

    A class's AUROC is of the mean similarity to its prompts of presence less that to its prompts
    of absence. Accuracy and precision are those of CheXpert 5x200: images that have one of the
    classes and no other finding, up to 200 a class by the seed. Accuracy, as GLoRIA has it: the
    class of the highest similarity to any of its prompts of presence, each class standardised over
    these images. P@k: the share of that class among the k images that fit a prompt best, the mean
    over the prompts of presence; none of fewer images than k.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._prompts = [
            sentence
            for each in context.prompts.values()
            for sentence in (*each.present, *each.absent)
        ]
        self._reports: ReportEmbeddings | None = None
        self._similarities: list[Float[Tensor, "images prompts"]] = []
        self._known: list[tuple[str, Labels]] = []

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The AUROC of each class and their mean, then accuracy and precisions."""
        classes = tuple(self.context.prompts)
        return (*ZERO_SHOT_AUROC.of_each(classes), CLASS_ACCURACY, *CLASS_PRECISIONS.values())

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Compare the images of all ranks with the prompts."""
        if not self._prompts:
            return
        assert self.context.encode is not None
        if self._reports is None:
            tokens = self.context.encode([[each] for each in self._prompts])
            self._reports = self.method.embed_reports(tokens.to(self.context.device))
        similarity = gather_rows(self.method.similarity(outputs.images, self._reports))
        self._similarities.append(on_host(similarity[gather_rows(batch.sample_mask)]).double())
        for known in gather_objects([(each.key, each.labels) for each in real_records(batch)]):
            self._known += known

    def compute(self) -> dict[str, float]:
        """The numbers. Raises InputError for a class that is no label of any study."""
        if not self._known:
            return {}
        classes, similarity = tuple(self.context.prompts), torch.cat(self._similarities)
        names = {name for _, labels in self._known for name in labels}
        if unknown := [name for name in classes if name not in names]:
            raise InputError(
                f"evaluate: prompts: {unknown[0]!r} is no label of the judged studies: choose "
                f"among {', '.join(sorted(names)) or 'none'}"
            )
        present, scores = list[Tensor](), list[Tensor]()
        start = 0
        for prompts in self.context.prompts.values():
            middle = start + len(prompts.present)
            end = middle + len(prompts.absent)
            present.append(similarity[:, start:middle])
            scores.append(present[-1].mean(dim=1))
            if end > middle:
                scores[-1] = scores[-1] - similarity[:, middle:end].mean(dim=1)
            start = end
        areas = area_under_roc(torch.stack(scores, dim=1), self._targets(classes))
        return ZERO_SHOT_AUROC.mean_and_each(classes, areas.tolist()) | self._of_single(present)

    def _targets(self, classes: tuple[str, ...]) -> Float[Tensor, "images classes"]:
        """1, 0, or NaN for what is not known, or uncertain."""
        values = [[labels.get(name) for name in classes] for _, labels in self._known]
        rows = [[float("nan") if v is None or v < 0 else v for v in row] for row in values]
        return torch.tensor(rows, dtype=torch.float64)

    def _of_single(self, present: list[Tensor]) -> dict[str, float]:
        """Accuracy and precisions; nothing where less than two classes have images of their own."""
        single = [self._images_of(name) for name in self.context.prompts]
        if sum(bool(images) for images in single) < 2:
            return {}
        rows = torch.tensor([image for images in single for image in images])
        truth = torch.tensor([each for each, images in enumerate(single) for _ in images])
        best = torch.stack([each[rows].amax(dim=1) for each in present], dim=1)
        spread = best.std(dim=0, correction=0).clamp_min(torch.finfo(best.dtype).tiny)
        found = ((best - best.mean(dim=0)) / spread).argmax(dim=1)
        metrics = {CLASS_ACCURACY.name: (found == truth).double().mean().item()}
        for k, metric in CLASS_PRECISIONS.items():
            if len(rows) < k:
                continue
            shares = [
                (truth[prompt[rows].argsort(descending=True, stable=True)[:k]] == number)
                for number, prompts in enumerate(present)
                if single[number]
                for prompt in prompts.T
            ]
            metrics[metric.name] = torch.stack(shares).double().mean().item()
        return metrics

    def _images_of(self, name: str) -> list[int]:
        """The rows of images that show this class and no other finding."""
        drawn = [
            (sha256(f"{self.context.seed} {key}".encode()).digest(), row)
            for row, (key, labels) in enumerate(self._known)
            if labels.get(name) == 1 and _nothing_else(labels, name)
        ]
        return [row for _, row in sorted(drawn)[:IMAGES_A_CLASS]]


def _nothing_else(labels: Labels, name: str) -> bool:
    """What is not mentioned is absent, and what is uncertain is not."""
    return not any(value for other, value in labels.items() if other not in (name, NO_FINDING))
