"""Figures of classes that would have one name are refused before any is measured."""

from __future__ import annotations

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.measures.base import Context, make_measures
from distributed_pretrain.measures.detection import Detection
from tests.distributed_pretrain.measures.test_examples import Detects


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        (("Opacity", "COCO"), r"'map_coco' \(COCO and mAP as COCO matches\)"),
        (("positive",), r"'map_positive' \(positive and mAP on images with boxes\)"),
        (("Lung Lesion", "lung_lesion"), r"'map_lung_lesion' \(Lung Lesion and lung_lesion\)"),
    ],
)
def test_classes_that_share_a_name_are_refused(boxes: tuple[str, ...], told: str) -> None:
    context = Context(objective=Detects([]), device=torch.device("cpu"), boxes=boxes)
    with pytest.raises(InputError, match=f"two figures would be called {told}: give"):
        make_measures([Detection], context)


def test_others_are_not() -> None:
    boxes = ("Opacity", "Lung Lesion")
    context = Context(objective=Detects([]), device=torch.device("cpu"), boxes=boxes)
    assert len(make_measures([Detection], context)) == 1
