"""The phantom that is hard to cheat can be learned: with boxes as labels an encoder points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.profiles import load_profile
from data_shards.records.study import Box, Split, StudyRecord
from distributed_pretrain.data.geometry import (
    ModelSquare,
    evaluated_image,
    region_map_on_pixels,
)
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.experiments.grid.pool import build_shards
from distributed_pretrain.measures.blind_maps import FOCAL
from distributed_pretrain.measures.heat_maps import pointing_hits, shares_of_cells
from distributed_pretrain.models.image_encoder import make_image_encoder
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.paths import ROOT

STEPS, BATCH, LEARNING_RATE = 500, 64, 3e-3
# Cells in a box are few.
POSITIVE_WEIGHT = 5.0

Study = tuple[Tensor, StudyRecord]


@pytest.mark.slow
def test_boxes_as_labels_point_right_in_seven_of_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bars of phantom_regions.yaml leave room for: the signal is in the images.

    The quickstart's shards, encoder and size: a map of each category, fitted to the boxes' shares
    of its cells.
    """
    monkeypatch.chdir(ROOT)
    shards = tmp_path / "shards.yaml"
    shards.write_text(
        f"extends: {ROOT / 'configs/shards/phantom_quickstart.yaml'}\n"
        f"phantom: {{archive: {tmp_path / 'archive'}}}\n"
    )
    build_shards(shards, tmp_path / "shards")
    profile = ROOT / "configs/pretrain/lovt_quickstart.yaml"
    data = load_profile(PretrainConfig, profile, [f"data.shards={tmp_path / 'shards'}"]).data
    training, test = studies_of(data, "train"), studies_of(data, "test")
    categories = sorted({box.category for _, record in training for box in record.boxes})

    torch.manual_seed(0)
    encoder = make_image_encoder("patches", weights=None)
    model = nn.Sequential(encoder, nn.Conv2d(encoder.channels, len(categories), 1))
    images = torch.stack([image for image, _ in training])
    cells = model(images[:1])[0]
    wanted = torch.stack(
        [shares_of(record, categories, cells, data.image_size_px) for _, record in training]
    )
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,))
        loss = F.binary_cross_entropy_with_logits(
            model(images[rows]), wanted[rows], pos_weight=torch.tensor(POSITIVE_WEIGHT)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    hits, focal = [], []
    for image, record in test:
        with torch.no_grad():
            maps = region_map_on_pixels(model(image[None])[0], data.image_size_px)
        square = square_of(record, data.image_size_px)
        for boxes in boxes_of(record, key="phrase").values():
            heat = maps[categories.index(boxes[0].category)]
            inside = square.inside(boxes)
            hits.append(pointing_hits(heat[None], inside[None], square.extent()[None]).item())
            focal.append(boxes[0].category in FOCAL)
    pointing = torch.tensor(hits, dtype=torch.float64)
    assert len(hits) > 200
    assert pointing.mean() > 0.7
    assert pointing[torch.tensor(focal)].mean() > 0.6


def studies_of(data: DataConfig, split: Split) -> list[Study]:
    """The pixels that a model sees and the record of each study."""
    loader = EvaluationLoader(ShardSplit(data.files(), split, data.text_policy), NoReports(), data)
    return [
        pair for batch in loader.batches() for pair in zip(batch.images, batch.records, strict=True)
    ]


def square_of(record: StudyRecord, size_px: int) -> ModelSquare:
    return ModelSquare(record.images[evaluated_image(record)], size_px)


def boxes_of(record: StudyRecord, *, key: str) -> dict[str, list[Box]]:
    found: dict[str, list[Box]] = {}
    for box in record.boxes:
        if box.phrase and box.image == evaluated_image(record):
            found.setdefault(getattr(box, key), []).append(box)
    return found


def shares_of(record: StudyRecord, categories: list[str], cells: Tensor, size_px: int) -> Tensor:
    """The share of each cell that each category's boxes cover."""
    boxes = boxes_of(record, key="category")
    square = square_of(record, size_px)
    inside = torch.stack([square.inside(boxes.get(name, [])) for name in categories])
    return shares_of_cells(inside, cells)
