"""LoVT's local losses can be met without an image; the contrast with other images cannot."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distributed_pretrain.alignment.lovt import LovtAlignment
from distributed_pretrain.losses.local import local_report_loss
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast

KINDS, SENTENCES, REGIONS, DIM = 12, 5, 16, 24


def reports(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sentences of different kinds, each a little different in every report, and their ids."""
    kinds = torch.randn(KINDS, DIM, generator=torch.Generator().manual_seed(5))
    said = torch.stack([torch.randperm(KINDS, generator=random) for _ in range(count)])
    said = said[:, :SENTENCES]
    noise = torch.randn(count, SENTENCES, DIM, generator=random)
    return kinds[said] + 0.2 * noise, torch.arange(count * SENTENCES).view(count, SENTENCES)


def test_constants_in_place_of_regions_meet_the_local_report_loss_on_unseen_reports() -> None:
    """Eqs 1, 2, 10-12: a sentence looks its own slot up, and the others are of the same report."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    constants = nn.Parameter(torch.randn(REGIONS, DIM))
    alignment = LovtAlignment(DIM)
    optimizer = torch.optim.Adam([constants, *alignment.parameters()], lr=1e-2)

    def loss(count: int) -> Tensor:
        sentences, _ = reports(count, random)
        mask = torch.ones(count, SENTENCES, dtype=torch.bool)
        aligned = alignment(constants.expand(count, -1, -1), sentences, mask)
        weights = torch.full((count, SENTENCES), 1 / SENTENCES)
        return local_report_loss(sentences, aligned.sentences_from_image, mask, weights)

    before = loss(256).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(64).backward()
        optimizer.step()
    assert before > 1.5  # ln 5 = 1.61
    assert loss(256).item() < 0.3


def test_constants_in_place_of_regions_do_not_meet_the_contrast_with_other_images() -> None:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    constants = nn.Parameter(torch.randn(REGIONS, DIM))
    optimizer = torch.optim.Adam([constants], lr=1e-2)
    count = 16

    def loss() -> Tensor:
        sentences, ids = reports(count, random)
        return sentence_region_contrast(
            sentences,
            constants.expand(count, -1, -1),
            sentence_mask=torch.ones(count, SENTENCES, dtype=torch.bool),
            sentence_ids=ids,
            most_sentences=SENTENCES,
        )

    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    # Over images ln 16 whatever the constants; over sentences one gains what another loses.
    others = (count - 1) * SENTENCES + 1
    assert loss().item() > 0.95 * (math.log(count) + math.log(others)) / 2
