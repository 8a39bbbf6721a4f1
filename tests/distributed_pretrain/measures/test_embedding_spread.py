"""Alignment, uniformity and deviation are those of a loop, and say what a collapse is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.embedding_spread import Spread, uniformity
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextOutputs,
    ReportEmbeddings,
)
from tests.distributed_pretrain.measures.test_grounding import BrightnessMethod
from tests.tiny.batches import batch_of


def measured(images: Tensor, reports: Tensor) -> dict[str, float]:
    measure = Spread(Context(objective=BrightnessMethod(), device=torch.device("cpu")))
    for rows in (slice(0, 2), slice(2, None)):
        own, told = images[rows], reports[rows]
        batch = batch_of([[[1]]] * len(own))
        mask = torch.ones(len(own), 1, dtype=torch.bool)
        outputs = ImageTextOutputs(
            sample_mask=batch.sample_mask,
            images=ImageEmbeddings(image=own, regions=own[:, None, None]),
            reports=ReportEmbeddings(report=told, local=told[:, None], local_mask=mask),
        )
        measure.update(batch, outputs)
    found = measure.compute()
    assert found.keys() == {metric.name for metric in measure.metrics}
    return found


def test_the_numbers_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    images, reports = (3 * torch.randn(5, 4, generator=generator) for _ in range(2))
    found = measured(images, reports)
    units = [[normalize(row.double(), dim=0) for row in each] for each in (images, reports)]
    apart = [(a - b).square().sum().item() for a, b in zip(*units, strict=True)]
    assert found["alignment"] == pytest.approx(sum(apart) / 5, rel=1e-6)
    for kind, rows in zip(("image", "report"), units, strict=True):
        pairs = [
            math.exp(-2 * (a - b).square().sum().item()) for a, b in itertools.permutations(rows, 2)
        ]
        expected = math.log(sum(pairs) / len(pairs))
        assert found[f"uniformity_{kind}"] == pytest.approx(expected, rel=1e-6)
        deviation = torch.stack(rows).std(dim=0, correction=0).mean().item() * 2
        assert found[f"embedding_std_{kind}"] == pytest.approx(deviation, rel=1e-6)


def test_collapsed_embeddings_have_no_spread_and_a_sphere_full_of_them_has_one() -> None:
    collapsed = measured(*(torch.ones(6, 8) for _ in range(2)))
    assert collapsed == pytest.approx(dict.fromkeys(collapsed, 0.0), abs=1e-9)
    full = normalize(torch.randn(2100, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    # Distances are near sqrt(2): exp(-2 x 2).
    assert uniformity(full.double()) == pytest.approx(-4, abs=0.2)
    assert measured(full[:300], full[300:600])["embedding_std_image"] == pytest.approx(1, abs=0.02)
