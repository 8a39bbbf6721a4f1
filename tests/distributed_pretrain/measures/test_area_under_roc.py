"""AUROC against a naive count of pairs."""

from __future__ import annotations

import math

import pytest
import torch

from distributed_pretrain.measures.area_under_roc import area_under_roc
from distributed_pretrain.measures.auroc import AUROC

NAN = math.nan


def test_the_area_is_the_share_of_pairs_in_the_right_order_ties_counting_half() -> None:
    generator = torch.Generator().manual_seed(0)
    # Few distinct scores, so that there are many ties.
    scores = torch.randint(0, 5, (40, 2), generator=generator).double()
    labels = torch.randint(0, 2, (40, 2), generator=generator).double()
    labels[::7, 0] = NAN
    labels[3, 1] = -1
    areas = area_under_roc(scores, labels)
    for klass in range(2):
        positive = scores[labels[:, klass] == 1, klass].tolist()
        negative = scores[labels[:, klass] == 0, klass].tolist()
        wins = [(p > n) + (p == n) / 2 for p in positive for n in negative]
        assert areas[klass].item() == pytest.approx(sum(wins) / len(wins), abs=1e-12)


def test_right_order_is_1_wrong_order_0_and_no_order_one_half() -> None:
    labels = torch.tensor([[0.0], [0.0], [1.0], [1.0]]).expand(4, 3)
    scores = torch.tensor([[1.0, 4.0, 2.0], [2.0, 3.0, 2.0], [3.0, 2.0, 2.0], [4.0, 1.0, 2.0]])
    assert area_under_roc(scores, labels).tolist() == [1, 0, 0.5]


def test_a_class_without_both_kinds_has_no_area_and_leaves_the_mean() -> None:
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [NAN, 0.0]])
    areas = area_under_roc(torch.tensor([[1.0, 1.0], [2.0, 0.0], [3.0, 2.0]]), labels)
    assert math.isnan(areas[0])
    assert AUROC.mean_and_each(("Edema", "Lung Opacity"), areas.tolist()) == {
        "auroc": 0.5,
        "auroc_lung_opacity": 0.5,
    }
    assert AUROC.mean_and_each(("Edema",), areas[:1].tolist()) == {}
