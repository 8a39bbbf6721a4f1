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

from distributed_pretrain.batch import Batch, ReportTokens


@dataclass(frozen=True)
class ImageEmbeddings:
    """Images in the joint space: one vector per study and one per region (row-major grid).

    Vectors have any length: they are compared by their cosine. `image` may take in the lateral
    view; `regions` are those of the frontal image, and `region_weights` sum to 1 over them.
    """

    image: Float[Tensor, "batch dim"]
    regions: Float[Tensor, "batch regions dim"]
    region_weights: Float[Tensor, "batch regions"]
    grid: tuple[int, int]


@dataclass(frozen=True)
class ReportEmbeddings:
    """Reports in the joint space: one vector per report and one per sentence.

    Vectors have any length; those of padded sentences (mask False) mean nothing.
    `sentence_weights` sum to 1 over the real sentences of a report.
    """

    report: Float[Tensor, "batch dim"]
    sentences: Float[Tensor, "batch sentences dim"]
    sentence_weights: Float[Tensor, "batch sentences"]
    sentence_mask: Bool[Tensor, "batch sentences"]


@dataclass(frozen=True)
class Outputs:
    """What validation and pictures read from a method's outputs; a method adds what its loss needs.

    `image` and `report` are the global embeddings of the joint space; `sentence_to_region` says
    where each sentence looks (rows of real sentences sum to 1).
    """

    image: Float[Tensor, "batch dim"]
    report: Float[Tensor, "batch dim"]
    region_weights: Float[Tensor, "batch regions"]
    sentence_to_region: Float[Tensor, "batch sentences regions"]
    grid: tuple[int, int]


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
    accumulation), touches every trained parameter and returns all the loss needs. The loss has
    no parameters of its own and falls into two kinds of terms: `coupled_terms` compare samples
    with each other and may gather over ranks; `sample_terms` are means over samples of what each
    yields by itself. Every term is the mean over this rank's samples of a loss whose average over
    ranks is that of the whole batch.

    `term_weights` are the terms' factors in the total, and with `"total"` name what `loss`
    returns; `max_tokens` is the longest report the text encoder takes.
    """

    term_weights: dict[str, float]
    max_tokens: int

    @abstractmethod
    def forward(self, batch: Batch) -> Any:
        """Every tower output the loss needs, as one dataclass of tensors."""

    @abstractmethod
    def coupled(self, outputs: Any) -> Coupled:
        """The part of the outputs that `coupled_terms` compares."""

    @abstractmethod
    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """Scalar, unweighted terms between samples."""

    @abstractmethod
    def sample_terms(self, outputs: Any) -> dict[str, Tensor]:
        """Scalar, unweighted terms within samples."""

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each term times its weight."""
        return {name: self.term_weights[name] * term for name, term in terms.items()}

    def loss(self, outputs: Any) -> dict[str, Tensor]:
        """Scalar loss terms by name; `"total"`, their weighted sum, is the one to minimise."""
        terms = self.coupled_terms(self.coupled(outputs)) | self.sample_terms(outputs)
        return {"total": sum_of(self.weighted(terms)), **terms}

    @abstractmethod
    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Image and region embeddings in the joint space (for retrieval and grounding).

        Only images are read: the frontal ones, and laterals by a method that looks at both.
        """

    @abstractmethod
    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Report and sentence embeddings in the joint space."""

    @abstractmethod
    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map: what downstream tasks build on."""

    def phrase_heat(
        self,
        phrases: Float[Tensor, "phrases dim"],
        regions: Float[Tensor, "phrases regions dim"],
    ) -> Float[Tensor, "phrases regions"]:
        """How much each region of its image belongs to each phrase; by default their cosine.

        Rows are compared within themselves only, so any increasing scale will do. A method whose
        loss trains another comparison answers with that one.
        """
        return torch.einsum("pd,prd->pr", normalize(phrases, dim=-1), normalize(regions, dim=-1))


def sum_of(terms: dict[str, Tensor]) -> Float[Tensor, ""]:
    """The sum of scalar terms."""
    return reduce(torch.add, terms.values())
