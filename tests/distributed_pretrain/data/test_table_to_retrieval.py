"""A user's own images with case notes, from table to retrieval: a short run, as README shows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from distributed_pretrain.run_folder.folder import RunFolder

if TYPE_CHECKING:
    from tests.tiny.run import Command

PATIENTS = 80
IMAGES_A_PATIENT = 2
SIDES = ("left", "right")
SIZES = {"small": 5, "large": 14}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with `pairs.csv` and images: bright spots, which the notes tell of."""
    folder = tmp_path / "pairs"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:90, 0:80]
    rows = []
    for number in range(PATIENTS * IMAGES_A_PATIENT):
        side, size = SIDES[number % 2], ("small", "large")[number // 2 % 2]
        # The patient's left is the viewer's right.
        across, down = (60 if side == "left" else 20), random.integers(25, 70)
        spot = (x - across) ** 2 + (y - down) ** 2 < SIZES[size] ** 2
        pixels = 60 + 130 * spot + random.normal(0, 10, spot.shape)
        name = f"case {number}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "images" / name)
        notes = f"A {size} opacity in the {side} lung, seen on day {number % 9}. No effusion."
        view = ("PA", "AP", "AP Supine")[number % 3]
        rows.append((name, f"{number // IMAGES_A_PATIENT}", "", view, notes))
    with (folder / "pairs.csv").open("w", newline="") as file:
        header = ("image", "patient_id", "age", "view", "clinical_notes")
        csv.writer(file).writerows([header, *rows])
    return folder


def test_pairs_go_from_a_table_to_retrieval(command: Command, pairs: Path, tmp_path: Path) -> None:
    command.complete(
        command(
            *("build", "configs/shards/csv_pairs.yaml", f"output={tmp_path / 'shards'}"),
            *(f"source.table={pairs / 'pairs.csv'}", f"source.image_root={pairs / 'images'}"),
            *("source.columns.report=clinical_notes", "test_fraction=0.2"),
            package="data_shards",
        )
    )
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert sum(manifest["samples_by_split"].values()) == PATIENTS * IMAGES_A_PATIENT
    run = tmp_path / "run"
    command.complete(
        command(
            *("pretrain", "configs/pretrain/lovt_small.yaml"),
            *(f"data.shards={tmp_path / 'shards'}", f"run_folder={run}"),
            *("data.image_size_px=64", "data.global_batch=24", "method.image_encoder.width=0.25"),
            *("training.max_steps=30", "training.validate_every_steps=15"),
        )
    )
    lines = RunFolder(run).read_metrics()
    losses = [line["total"] for line in lines if line["split"] == "train"]
    assert sum(losses[-6:]) < 0.95 * sum(losses[:6])
    command.complete(command("evaluate", run, "checkpoint=last"))
    metrics = json.loads((run / "evaluation_test_last.json").read_text())
    assert metrics["samples"] == manifest["samples_by_split"]["test"] > 10
    assert 0 < metrics["recall_at_10"] <= 1
    assert "grounding_cnr" not in metrics  # the table has no boxes
