"""Findings told by prompts: who is compared with what, and which images are of one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.prompts import ClassPrompts, PromptsConfig
from distributed_pretrain.measures.zero_shot import ZeroShot
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
)
from tests.distributed_pretrain.measures.test_grounding import _study
from tests.paths import CONFIGS
from tests.tiny.batches import batch_of

Labels = Mapping[str, float | None]
SENTENCES = ("edema", "wet lungs", "no edema", "nodule")
PROMPTS = {
    "Edema": ClassPrompts(present=("edema", "wet lungs"), absent=("no edema",)),
    "Nodule": ClassPrompts(present=("nodule",)),
}


class Numbered(ImageTextMethod):
    """A report is the unit vector of its only token's number."""

    def __init__(self) -> None:
        nn.Module.__init__(self)

    def forward(self, batch: Batch) -> ImageTextOutputs:
        raise NotImplementedError

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        raise NotImplementedError

    def embed_reports(
        self, report: ReportTokens, sample_mask: Tensor | None = None
    ) -> ReportEmbeddings:
        del sample_mask
        vectors = torch.eye(len(SENTENCES) + 1)[report.token_ids[:, 0]]
        return ReportEmbeddings(
            report=vectors, local=vectors[:, None], local_mask=report.sentence_mask
        )


def encode(reports: Sequence[Sequence[str]]) -> ReportTokens:
    numbers = torch.tensor([[SENTENCES.index(sentence)] for (sentence,) in reports])
    real = torch.ones_like(numbers, dtype=torch.bool)
    zeros = torch.zeros_like(numbers)
    return ReportTokens(numbers, real, zeros, real, word_index=zeros)


def measured(
    similarities: Sequence[Sequence[float]],
    labels: Sequence[Labels],
    prompts: Mapping[str, ClassPrompts] = PROMPTS,
) -> dict[str, float]:
    """Of images with these cosines to `SENTENCES`, the last of which show nothing."""
    context = Context(objective=Numbered(), device=torch.device("cpu"), prompts=prompts)
    measure = ZeroShot(replace(context, encode=encode))
    cosines = torch.tensor([list(row) for row in similarities])
    rest = (1 - cosines.square().sum(dim=1, keepdim=True)).sqrt()
    images = torch.cat([cosines, rest], dim=1)
    # Two batches, and in each a row that is not real.
    for rows in (range(2), range(2, len(labels))):
        records = [
            replace(_study(f"study-{row}", ()), labels=dict(labels[row])) for row in (*rows, 0)
        ]
        mask = torch.tensor([True] * len(rows) + [False])
        own = images[[*rows, 0]]
        batch = replace(batch_of([[[1]]] * len(mask)), records=tuple(records), sample_mask=mask)
        reports = Numbered().embed_reports(encode([["edema"]] * len(mask)))
        embedded = ImageEmbeddings(image=own, regions=own[:, None, None])
        measure.update(batch, ImageTextOutputs(sample_mask=mask, images=embedded, reports=reports))
    return measure.compute()


def test_a_finding_is_told_by_its_prompts_less_those_of_its_absence() -> None:
    labels: list[Labels] = [
        {"Edema": 1.0, "Nodule": None},
        {"Edema": 0.0},
        {"Edema": 1.0, "Nodule": 1.0},
        {"Nodule": 0.0},
    ]
    # edema, wet lungs, no edema, nodule: the second is alike in presence, and more so in absence
    similarities = [
        [0.5, 0.3, 0.1, 0.0],
        [0.4, 0.4, 0.6, 0.0],
        [0.2, 0.0, 0.3, 0.1],
        [0, 0, 0, 0.2],
    ]
    found = measured(similarities, labels)
    assert found["zero_shot_auroc_edema"] == 1.0
    assert found["zero_shot_auroc_nodule"] == 0.0
    assert found["zero_shot_auroc"] == 0.5


def test_classes_are_judged_on_images_that_show_nothing_else() -> None:
    labels: list[Labels] = [
        {"Edema": 1.0, "Nodule": 0.0, "No Finding": 1.0},
        {"Edema": 1.0, "Nodule": None, "Fracture": 0.0},
        *[{"Edema": 0.0, "Nodule": 1.0}] * 3,
        {"Edema": 1.0, "Nodule": 1.0},  # two of them
        {"Edema": 1.0, "Fracture": 1.0},  # another finding
        {"Edema": 1.0, "Fracture": -1.0},  # perhaps another
    ]
    similarities = [
        [0.9, 0.0, 0, 0.1],
        [0.1, 0.2, 0, 0.3],
        [0.0, 0.1, 0, 0.4],
        [0.2, 0.5, 0, 0.6],
        [0.1, 0.1, 0, 0.5],
        *[[9.0, 9, 9, 9]] * 3,
    ]
    found = measured(similarities, labels)
    # By the prompt that fits best, standardised, the second image is nearer to the nodule: -0.47
    # against -0.52. By the mean of both prompts it would be right.
    assert found["class_accuracy"] == pytest.approx(4 / 5)
    # All five images are those that fit best.
    assert found["class_precision_at_5"] == pytest.approx((2 / 5 + 2 / 5 + 3 / 5) / 3)
    assert "class_precision_at_10" not in found, "of five images"


def test_without_prompts_or_images_of_two_classes_there_is_no_number() -> None:
    none = [[0.0] * 4] * 3
    assert measured(none, [{"Edema": 1.0}, {}], {}) == {}
    labels: list[Labels] = [{"Edema": 1.0, "Nodule": 0.0}, {"Edema": 0.0, "Nodule": 0.0}, {}]
    found = measured([[0.5, 0.5, 0, 0], *none], labels)
    assert set(found) == {"zero_shot_auroc", "zero_shot_auroc_edema"}
    with pytest.raises(InputError, match=r"prompts: 'Nodule' is no label .*: choose among Edema$"):
        measured(none, [{"Edema": 1.0}, {"Edema": 0.0}])


@pytest.mark.parametrize("path", sorted((CONFIGS / "prompts").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_file_of_prompts_is_read(path: Path) -> None:
    config = EvaluateConfig(prompts=path)
    assert config.read_prompts() == load_profile(PromptsConfig, path).classes
    assert all(each.absent for each in config.read_prompts().values())
    assert EvaluateConfig().read_prompts() == {}
