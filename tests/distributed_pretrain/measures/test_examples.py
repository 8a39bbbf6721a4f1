"""The examples of a split are its best, median and worst image, and are drawn where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distributed_pretrain.batch import Boxes
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.examples import Examples
from distributed_pretrain.measures.marked_pictures import Example, MarkedBoxes, examples_picture
from distributed_pretrain.methods.boxes import BoxOutputs, Detections
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.methods.objective import Objective
from tests.distributed_pretrain.measures.test_overlap import CLASSES, Predicts
from tests.tiny.batches import batch_of

BOX = torch.tensor([10.0, 10.0, 30.0, 40.0])


class Detects(Objective):
    """What it is told to have found."""

    def __init__(self, found: list[Detections]) -> None:
        super().__init__()
        self.found = found

    def forward(self, batch: object) -> None:
        raise NotImplementedError

    def detect(self, outputs: BoxOutputs) -> list[Detections]:
        del outputs
        return self.found


def examples_of(
    objective: Objective, outputs: MaskOutputs | BoxOutputs, **context: object
) -> Examples:
    measure = Examples(Context(objective=objective, device=torch.device("cpu"), **context))  # type: ignore[arg-type]
    assert measure.applies(objective)
    rows = len(outputs.sample_mask)
    keys = tuple("abcdefgh"[:rows])
    batch = replace(batch_of([[[1]]] * rows), keys=keys, sample_mask=outputs.sample_mask)
    measure.update(batch, outputs)
    return measure


def test_masks_are_ranked_by_dice_and_images_without_a_mark_are_none() -> None:
    masks = torch.zeros(5, 2, 4, 4, dtype=torch.bool)
    masks[:4, 0, :2] = True
    predicted = masks.clone()
    predicted[1, 0, 1] = False  # 2 x 4 / (4 + 8)
    predicted[2, 0] = False
    predicted[3, 1] = True  # of a class that is not marked
    kept = torch.tensor([True, True, True, False, True])
    logits = predicted.float() - 0.5
    outputs = MaskOutputs(sample_mask=kept, logits=logits, masks=masks)
    found = examples_of(Predicts(), outputs, masks=CLASSES)
    assert found.scores == pytest.approx({"a": 1.0, "b": 2 / 3, "c": 0.0})
    assert found.chosen() == {"best": "a", "median": "b", "worst": "c"}


def test_boxes_are_ranked_by_the_precision_of_their_image() -> None:
    def detections(*shifts: float) -> Detections:
        corners = torch.stack([BOX + shift for shift in shifts]) if shifts else torch.empty(0, 4)
        zeros = torch.zeros(len(shifts), dtype=torch.long)
        return Detections(corners, zeros, torch.linspace(0.9, 0.5, len(shifts)))

    present = torch.tensor([[True], [True], [False]])
    boxes = Boxes(BOX.expand(3, 1, 4), torch.zeros(3, 1, dtype=torch.long), present)
    outputs = BoxOutputs(sample_mask=torch.ones(3, dtype=torch.bool), maps=(), boxes=boxes)
    objective = Detects([detections(), detections(0.0), detections(0.0)])
    found = examples_of(objective, outputs, boxes=("Nodule",))
    assert found.scores == pytest.approx({"a": 0.0, "b": 1.0})
    assert found.chosen() == {"best": "b", "worst": "a"}


def test_one_image_is_one_example_and_none_are_none() -> None:
    measure = Examples(Context(objective=Predicts(), device=torch.device("cpu"), masks=CLASSES))
    assert measure.chosen() == {}
    measure.scores = {"only": 0.5}
    assert measure.chosen() == {"best": "only"}


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_what_is_marked_is_drawn_above_and_what_was_found_below(kind: str) -> None:
    black = np.zeros((64, 64), np.float32)
    none = np.zeros((2, 64, 64), bool)
    left, right = none.copy(), none.copy()
    left[0, 20:40, 5:25], right[1, 20:40, 40:60] = True, True
    if kind == "masks":
        example = Example(black, "best: $1", left, right)
    else:
        corners = np.array([[5.0, 20, 25, 40], [40, 20, 60, 40]])
        truth = MarkedBoxes(corners[:1], np.array([0]))
        example = Example(
            black, "best: $1", truth, MarkedBoxes(corners[1:], np.array([1]), np.array([0.5]))
        )
    picture = examples_picture([example], ["A$", "B"]).astype(int)
    dark = picture.sum(axis=2) < 30
    # The panels alone: captions and the legend have fewer dark pixels in a row.
    inside = picture[dark.mean(axis=1) > 0.3][:, dark.mean(axis=0) > 0.3]
    middle = inside.shape[1] / 2
    blue = np.argwhere(inside[..., 2] - inside[..., 0] > 40)
    orange = np.argwhere(inside[..., 0] - inside[..., 2] > 40)
    assert blue[:, 0].max() < orange[:, 0].min(), "the truth is above"
    assert blue[:, 1].max() < middle < orange[:, 1].min()
