"""Masks and boxes come with the image that is shown, at its place and size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from data_shards.records.study import Box, ImageRecord, MaskRecord, Report, StudyRecord
from distributed_pretrain.data.loader import EvaluationLoader, TrainingLoader
from distributed_pretrain.data.masks_and_boxes import read_drawn, stack_boxes
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import NoReports

STILL = {"augmentation": {"enabled": False}}


def record(width: int = 80, height: int = 40) -> StudyRecord:
    images = tuple(
        ImageRecord(name, "PA", f"image{n}.jpg", width, height, width, height)
        for n, name in enumerate("ba")
    )
    return StudyRecord(
        key="k",
        patient_id="p",
        study_id="s",
        split="train",
        source="drawn",
        licence="",
        images=images,
        report=Report("", {}, {}),
        labels={},
        boxes=(
            Box(1, 10, 5, 20, 10.4, "Edema"),
            Box(1, 50, 20, 10, 10, "Mass"),
            Box(0, 0, 0, 80, 40, "Edema"),  # on the other image
        ),
        masks=(
            MaskRecord(1, "Edema", "mask_Edema.png"),
            MaskRecord(0, "Mass", "mask_Mass.png"),
        ),
    )


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_they_are_those_of_the_first_frontal_image_by_id() -> None:
    config = DataConfig.model_validate(
        {"shards": ".", "image_size_px": 40, "masks": ["Mass", "Edema"], "boxes": ["Mass"], **STILL}
    )
    mask = np.zeros((40, 80), np.uint8)
    mask[10:20, 20:40] = 1
    drawn = read_drawn(record(), config, lambda _: png(mask))
    assert not drawn.masks[0].any()
    # Half the size, ten rows of padding above.
    expected = torch.zeros(40, 40, dtype=torch.bool)
    expected[15:20, 10:20] = True
    assert drawn.masks[1].equal(expected)
    assert drawn.boxes == ((25.0, 20.0, 30.0, 25.0, 0),)


def test_a_box_fills_whole_stored_pixels_for_its_mask() -> None:
    config = DataConfig.model_validate(
        {"shards": ".", "image_size_px": 80, "masks": ["Edema"], "masks_from": "boxes", **STILL}
    )
    drawn = read_drawn(record(), config, lambda _: b"")
    expected = torch.zeros(80, 80, dtype=torch.bool)
    expected[25:35, 10:30] = True  # 5 to round(15.4), behind twenty rows of padding
    assert drawn.masks[0].equal(expected)


def test_a_mask_of_another_size_is_named() -> None:
    config = DataConfig.model_validate({"shards": ".", "masks": ["Edema"], **STILL})
    with pytest.raises(ValueError, match=r"mask_Edema.png: cannot be decoded \(has 7 x 5 pixels"):
        read_drawn(record(), config, lambda _: png(np.zeros((5, 7), np.uint8)))


def test_boxes_are_stacked_with_places_that_are_not_there() -> None:
    config = DataConfig.model_validate({"shards": ".", "boxes": ["Mass"], **STILL})
    none = config.model_copy(update={"boxes": ("Other",)})
    boxes = stack_boxes([read_drawn(record(), each, lambda _: b"") for each in (none, config)])
    assert boxes.present.tolist() == [[False], [True]]
    assert stack_boxes([read_drawn(record(), none, lambda _: b"")]).corners.shape == (1, 1, 4)


def test_an_augmented_image_has_neither() -> None:
    with pytest.raises(ValidationError, match="masks and boxes are not moved"):
        DataConfig.model_validate({"shards": ".", "masks": ["Edema"]})


def test_training_and_evaluation_deliver_the_same(phantom_shards: Path) -> None:
    split = ShardSplit(phantom_shards, "train", "no_text")
    config = DataConfig.model_validate(
        {
            "shards": phantom_shards,
            "image_size_px": 32,
            "global_batch": 8,
            "masks": ["Cardiomegaly"],
            "boxes": ["Cardiomegaly"],
            "text_policy": "no_text",
            **STILL,
        }
    )
    whole = {}
    for batch in EvaluationLoader(split, NoReports(), config).batches():
        assert batch.masks is not None
        assert batch.boxes is not None
        for row, key in enumerate(batch.keys):
            whole[key] = (batch.masks[row], batch.boxes.corners[row][batch.boxes.present[row]])
    batch = next(TrainingLoader(split, NoReports(), config).batches())
    assert batch.masks is not None
    assert batch.boxes is not None
    for row, key in enumerate(batch.keys):
        masks, corners = whole[key]
        assert batch.masks[row].equal(masks)
        assert batch.boxes.corners[row][batch.boxes.present[row]].equal(corners)
    marked = [masks for masks, _ in whole.values() if masks.any()]
    boxed = [corners for _, corners in whole.values() if len(corners)]
    assert marked
    assert boxed
