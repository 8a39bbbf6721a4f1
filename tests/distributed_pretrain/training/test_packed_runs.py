"""A run with packed reports is the run with padded ones, and says how little padding it read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distributed_pretrain.run_folder.folder import RunFolder
from tests.tiny import short_run as short

WORDS = (
    "training.max_steps=2",
    "training.validate_every_steps=2",
    "method.report_encoder.dropout=0",
)


def steps_of(profile: Path, folder: Path, *words: str) -> list[dict[str, Any]]:
    assert short.train(profile, folder, *WORDS, *words) == 0
    return [line for line in RunFolder(folder).read_metrics() if line["split"] == "train"]


def test_a_run_reads_hardly_any_padding_and_has_the_same_losses(
    tiny_profile: Path, tmp_path: Path
) -> None:
    padded = steps_of(tiny_profile, tmp_path / "padded")
    packed = steps_of(tiny_profile, tmp_path / "packed", "training.pack_reports=true")
    for one, other in zip(packed, padded, strict=True):
        assert one["total"] == pytest.approx(other["total"], rel=1e-5)
        assert one["tokens_per_second"] > 0
        assert one["padding_share"] < other["padding_share"]
