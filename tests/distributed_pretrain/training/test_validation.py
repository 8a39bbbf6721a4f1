"""Validation takes every measure that an objective has something for, and leaves no trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.losses.multi_label import multi_label_loss
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.catalog import VALIDATION
from distributed_pretrain.measures.retrieval import Retrieval
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
)
from distributed_pretrain.methods.labels import LabelOutputs
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.training.validation import Validation
from tests.distributed_pretrain.phantom_batches import configured, opened
from tests.tiny.methods import tiny_profile
from tests.tiny.sizes import HEADS

LABELS = ("Cardiomegaly", "Pleural Effusion")


@dataclass(frozen=True, kw_only=True)
class BothOutputs(ImageTextOutputs, LabelOutputs):
    """Embeddings and logits."""


class ReportsAndLabels(ImageTextMethod):
    """Embeds images and reports, and tells findings from the image's embedding."""

    predicts_labels = True

    def __init__(self, embedding: ImageTextMethod, *, dim: int) -> None:
        super().__init__(embedding.image_encoder, embedding.report_encoder)
        self.embedding = embedding
        self.classifier = nn.Linear(dim, len(LABELS))
        self.term_weights = {"multi_label": 1.0}

    def forward(self, batch: Batch) -> BothOutputs:
        images = self.embed_images(batch)
        assert batch.labels is not None
        return BothOutputs(
            sample_mask=batch.sample_mask,
            images=images,
            reports=self.embed_reports(batch.report, batch.sample_mask),
            logits=self.classifier(images.image),
            labels=batch.labels,
        )

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        return self.embedding.embed_images(batch)

    def embed_reports(
        self, report: ReportTokens, sample_mask: Tensor | None = None
    ) -> ReportEmbeddings:
        return self.embedding.embed_reports(report, sample_mask)

    def contrasted(self, outputs: LabelOutputs) -> Contrasted:
        return Contrasted(rows={"logits": outputs.logits, "labels": outputs.labels})

    def batch_terms(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"multi_label": multi_label_loss(logits, labels)}


@pytest.fixture
def validation(phantom_shards: Path, small_tokenizer: SentenceTokenizer) -> Validation:
    torch.manual_seed(0)
    embedding = tiny_profile("phantom_clip").method.build(Sizes(small_tokenizer.vocabulary_size))
    assert isinstance(embedding, ImageTextMethod)
    data = configured(phantom_shards, labels=LABELS, image_size_px=64)
    context = Context(
        objective=ReportsAndLabels(embedding, dim=HEADS["embedding_dim"]),
        device=torch.device("cpu"),
        labels=LABELS,
        encode=small_tokenizer.encode,
    )
    loader = EvaluationLoader(opened(data), small_tokenizer, data)
    return Validation(loader.batches, context, VALIDATION)


def test_a_method_that_reads_reports_and_predicts_labels_gets_both_kinds_of_measures(
    validation: Validation,
) -> None:
    metrics, measures = validation.run()
    wanted = {"total", "multi_label", "recall_at_5", "recall_sum", "auroc", "auroc_cardiomegaly"}
    assert wanted <= metrics.keys() <= validation.metrics.keys()
    assert 0 < metrics["auroc"] < 1
    assert {"similarity_matrix", "sentence_maps"} <= {
        n for each in measures for n in each.pictures()
    }


def test_validation_leaves_the_objective_as_it_was(validation: Validation) -> None:
    objective = validation.context.objective
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    for training in (True, False):
        objective.train(training)
        validation.run()
        assert objective.training == training
    torch.testing.assert_close(dict(objective.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_recalls_of_a_bf16_run_are_ranked_in_float32(validation: Validation) -> None:
    """Cosines of 8 bits have ties, which count against the model; an evaluation has none."""
    _, measures = validation.run(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    (similarity,) = (each.similarity for each in measures if isinstance(each, Retrieval))
    assert len(similarity) > 1
    assert not torch.equal(similarity, similarity.bfloat16().float())
    assert similarity.abs().max() <= 1 + 1e-6
