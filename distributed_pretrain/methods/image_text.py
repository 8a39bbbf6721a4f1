"""What methods share that learn from images and their reports."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch, ReportTokens, SampleRows
from distributed_pretrain.methods.objective import Contrasted, Method, Outputs
from distributed_pretrain.models.image_encoder import ImageEncoder, SampleMask
from distributed_pretrain.models.report_encoder import ReportEncoder

Similarity: TypeAlias = Float[Tensor, "images reports"]
Heat: TypeAlias = Float[Tensor, "phrases rows columns"]
PartMask: TypeAlias = Bool[Tensor, "batch parts"]


@dataclass(frozen=True, kw_only=True)
class ImageEmbeddings(SampleRows):
    """Embeddings of images: one vector per image and one per region of its frontal view.

    Vectors have any length: they are compared by their cosine. `region_weights`, where a method has
    them, sum to 1 over the regions of an image. `regions_as_images` are what the image would be of
    each region alone, where no loss has trained the regions. A method that reads lateral views adds
    their regions; where `lateral_mask` is False there is none, and its regions mean nothing.
    `lateral_present` is that mask on the host, () where it does not know.
    """

    image: Float[Tensor, "batch dim"]
    regions: Float[Tensor, "batch rows columns dim"]
    region_weights: Float[Tensor, "batch rows columns"] | None = None
    regions_as_images: Float[Tensor, "batch rows columns dim"] | None = None
    lateral_regions: Float[Tensor, "batch rows columns dim"] | None = None
    lateral_mask: Bool[Tensor, " batch"] | None = None
    lateral_present: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReportEmbeddings(SampleRows):
    """Embeddings of reports: one vector per report and one per local part of it.

    Local parts are sentences (LoVT) or words (LIMITR, GLoRIA, MGCA); a method that compares whole
    reports only has one, the report. Vectors have any length; those of padding (mask False) mean
    nothing. `local_weights`, where a method has them, sum to 1 over the real parts; `local_ids`
    tell equal texts (see `text_ids`). `local_counts` are the numbers of real parts, which come
    first, on the host; () where it does not know them.
    """

    report: Float[Tensor, "batch dim"]
    local: Float[Tensor, "batch parts dim"]
    local_mask: PartMask
    local_weights: Float[Tensor, "batch parts"] | None = None
    local_ids: Int[Tensor, "batch parts"] | None = None
    local_counts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageTextOutputs(Outputs):
    """What measures read of a method that embeds images and reports; a method adds its own."""

    images: ImageEmbeddings
    reports: ReportEmbeddings


class ImageTextMethod(Method):
    """A method whose images and reports can be compared with each other.

    With `compares_local` the similarity reads regions and local parts of reports, and measures
    keep them for it. `terms_of_regions` names the loss terms that compare regions with parts of
    reports.
    """

    compares_local: bool = False
    terms_of_regions: tuple[str, ...] = ()

    def __init__(self, image_encoder: ImageEncoder, report_encoder: ReportEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.report_encoder = report_encoder
        self.max_tokens = report_encoder.max_tokens

    @property
    def local_terms(self) -> tuple[str, ...]:
        """The terms of regions that count in the total."""
        return tuple(term for term in self.terms_of_regions if self.term_weights.get(term))

    def forward(self, batch: Batch) -> ImageTextOutputs:
        """Every representation of `batch`."""
        reports = self.embed_reports(batch.report, batch.sample_mask)
        reports = replace(reports, local_counts=self.local_counts(batch))
        return self.paired(self.embed_images(batch), reports, batch.sample_mask)

    def paired(
        self,
        images: ImageEmbeddings,
        reports: ReportEmbeddings,
        sample_mask: Bool[Tensor, " batch"],
    ) -> ImageTextOutputs:
        """What the losses need of image i beside report i."""
        return ImageTextOutputs(images=images, reports=reports, sample_mask=sample_mask)

    def contrasted(self, outputs: Any) -> Contrasted:
        """By default `image` and `report`, whole."""
        image, report = outputs.images.image, outputs.reports.report
        return Contrasted({"image": image, "report": report, "sample_mask": outputs.sample_mask})

    @abstractmethod
    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Image and region embeddings of the batch's views."""

    @abstractmethod
    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Embeddings of reports and their local parts; all are real without a mask."""

    def local_counts(self, batch: Batch) -> tuple[int, ...]:
        """That of the batch's reports; by default nobody asks."""
        del batch
        return ()

    def encode_sentences(
        self,
        report: ReportTokens,
        sample_mask: Bool[Tensor, " batch"] | None,
        *,
        alone: bool = False,
    ) -> tuple[Float[Tensor, "batch sentences dim"], Bool[Tensor, "batch sentences"]]:
        """The encoder's sentence embeddings, and which of them are a real sample's.

        `alone` is that of the encoder.
        """
        sentence_mask = of_real_samples(report.sentence_mask, sample_mask)
        sentences = self.report_encoder(
            report.token_ids,
            report.token_mask,
            report.sentence_index,
            sentence_mask,
            alone=alone,
            packing=report.packing,
        )
        return sentences, sentence_mask

    def similarity(self, images: ImageEmbeddings, reports: ReportEmbeddings) -> Similarity:
        """How well each image and each report fit, for retrieval; by default their cosine."""
        return normalize(images.image, dim=1) @ normalize(reports.report, dim=1).T

    def grounding_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """How much each frontal region of image i belongs to phrase i, a report of one sentence.

        By default their cosine. Phrases are compared within themselves only, so any increasing
        scale will do. A method whose loss trains another comparison answers with that one.
        """
        return cosine_map(phrases.report, images)


def cosine_map(
    phrases: Float[Tensor, "phrases dim"], images: ImageEmbeddings
) -> Float[Tensor, "phrases rows columns"]:
    """The cosine of phrase i to each frontal region of image i."""
    return torch.einsum(
        "pd,prcd->prc", normalize(phrases, dim=-1), normalize(images.regions, dim=-1)
    )


def of_real_samples(local_mask: PartMask, sample_mask: SampleMask | None) -> PartMask:
    """`local_mask` without the parts of samples that fill up a batch."""
    return local_mask if sample_mask is None else local_mask & sample_mask[:, None]
