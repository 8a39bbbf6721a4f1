"""What the trainer and the evaluations ask of a pre-training method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch, ReportTokens, SampleRows, Views
from distributed_pretrain.models.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class ImageEmbeddings(SampleRows):
    """Images in the joint space: one vector per image and one per region of its frontal view.

    Vectors have any length: they are compared by their cosine. `region_weights`, where a method has
    them, sum to 1 over the regions of an image. A method that reads lateral views adds their
    regions; where `lateral_mask` is False there is none, and its regions mean nothing.
    """

    image: Float[Tensor, "batch dim"]
    regions: Float[Tensor, "batch rows columns dim"]
    region_weights: Float[Tensor, "batch rows columns"] | None = None
    lateral_regions: Float[Tensor, "batch rows columns dim"] | None = None
    lateral_mask: Bool[Tensor, " batch"] | None = None

    def whole(self) -> ImageEmbeddings:
        """The same without regions."""
        return ImageEmbeddings(image=self.image, regions=self.regions[:, :0, :0])


@dataclass(frozen=True, kw_only=True)
class ReportEmbeddings(SampleRows):
    """Reports in the joint space: one vector per report and one per part of it.

    Parts are sentences (LoVT) or words (LIMITR, GLoRIA, MGCA); a method that compares whole
    reports only has one part, the report. Vectors have any length; those of padding (mask False)
    mean nothing. `part_weights`, where a method has them, sum to 1 over the real parts.
    """

    report: Float[Tensor, "batch dim"]
    parts: Float[Tensor, "batch parts dim"]
    part_mask: Bool[Tensor, "batch parts"]
    part_weights: Float[Tensor, "batch parts"] | None = None

    def whole(self) -> ReportEmbeddings:
        """The same without parts."""
        return ReportEmbeddings(
            report=self.report, parts=self.parts[:, :0], part_mask=self.part_mask[:, :0]
        )


@dataclass(frozen=True, kw_only=True)
class JointOutputs:
    """What validation and pictures read from a method with a joint space; a method adds its own.

    `sentence_to_region`, where a method has it, says where each sentence looks (rows of real
    sentences sum to 1).
    """

    images: ImageEmbeddings
    reports: ReportEmbeddings
    sentence_to_region: Float[Tensor, "batch sentences rows columns"] | None = None


@dataclass(frozen=True, kw_only=True)
class ClassifierOutputs:
    """What validation reads from a method that predicts labels (see `Batch.labels`)."""

    logits: Float[Tensor, "batch classes"]
    labels: Float[Tensor, "batch classes"]
    sample_mask: Bool[Tensor, " batch"]


@dataclass(frozen=True)
class Coupled:
    """What the losses between samples compare.

    `rows` have the samples as their first dimension: those of several micro-batches are joined
    along it. `shared` are learnt numbers (temperatures), the same for all samples.
    """

    rows: dict[str, Tensor]
    shared: dict[str, Tensor]


class Method(nn.Module, ABC):
    """A pre-training method: encoders, heads and the loss over them.

    A training step is `loss(forward(batch))`. `forward` runs once a step (twice with exact
    accumulation), touches every trained parameter and returns all the loss needs. The loss falls
    into two kinds of terms: `coupled_terms` compare samples with each other and may gather over
    ranks; `sample_terms` are means over samples of what each yields by itself. Every term is the
    mean over this rank's samples of a loss whose average over ranks is that of the whole batch.
    The loss has no parameters of its own: what it learns besides the encoders comes in through
    `forward`, so that DDP sees it.

    `image_encoder` is what is handed on. `term_weights` are the terms' factors in the total, and
    with `"total"` name what `loss` returns; a method without any is a starting point that nothing
    trains. `views` are the images it needs of a study, `max_tokens` is the longest report its text
    encoder takes (None: it reads none). `couples_samples` is False where there are no coupled
    terms; `predicts_labels` says that outputs are `ClassifierOutputs`.
    """

    image_encoder: ImageEncoder
    term_weights: dict[str, float]
    couples_samples: bool = True
    predicts_labels: bool = False
    views: Views = "frontal"
    max_tokens: int | None = None

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """Every tower output the loss needs, as one dataclass of tensors."""

    def coupled(self, outputs: Any) -> Coupled:
        """The part of the outputs that `coupled_terms` compares."""
        return Coupled(rows={}, shared={})

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """Scalar, unweighted terms between samples."""
        return {}

    def sample_terms(self, outputs: Any) -> dict[str, Tensor]:
        """Scalar, unweighted terms within samples."""
        return {}

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.term_weights[name] * term for name, term in terms.items()}

    def loss(self, outputs: Any) -> dict[str, Tensor]:
        """Scalar loss terms by name; `"total"`, their weighted sum, is the one to minimise."""
        terms = self.coupled_terms(self.coupled(outputs)) | self.sample_terms(outputs)
        return {"total": sum_of(self.weighted(terms)), **terms}

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map, before any head: what downstream tasks build on."""
        last_map: Tensor = self.image_encoder(images)
        return last_map

    def start_step(self, *, epoch: int) -> None:
        """Called before each step, with the epoch of its samples (from 0)."""

    def after_update(self, *, progress: float) -> None:
        """Called after each update that was made, on every rank.

        `progress` is the share of the run's steps that came before it.
        """


class JointSpace(ABC):
    """A method whose images and reports can be compared.

    With `compares_parts` the similarity reads regions and parts of reports, and evaluations keep
    them for it.
    """

    compares_parts: bool = False

    @abstractmethod
    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Image and region embeddings of the batch's views."""

    @abstractmethod
    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Embeddings of reports and their parts."""

    def similarity(
        self, images: ImageEmbeddings, reports: ReportEmbeddings
    ) -> Float[Tensor, "images reports"]:
        """How well each image and each report fit, for retrieval; by default their cosine."""
        return normalize(images.image, dim=1) @ normalize(reports.report, dim=1).T

    def phrase_heat(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """How much each frontal region of image i belongs to phrase i, a report of one sentence.

        By default their cosine. Phrases are compared within themselves only, so any increasing
        scale will do. A method whose loss trains another comparison answers with that one.
        """
        return torch.einsum(
            "pd,prcd->prc", normalize(phrases.report, dim=-1), normalize(images.regions, dim=-1)
        )


def sum_of(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """The sum of scalar terms."""
    return reduce(torch.add, terms.values())
