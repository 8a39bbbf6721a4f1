"""Figures that see no image know all training boxes, however few studies a head is fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.evaluation.evaluate import _evaluate
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.measures.grounding import Grounding


@pytest.mark.xdist_group("short_run")
def test_labelled_studies_change_no_blind_figure(short_run: Path, phantom_shards: Path) -> None:
    share = Share(device=torch.device("cpu"))

    def figures(labelled_studies: int) -> dict[str, float]:
        config = EvaluateConfig(
            shards=phantom_shards, split="train", labelled_studies=labelled_studies
        )
        return _evaluate(short_run, config, share, (Grounding,)).metrics

    few = figures(1)
    assert few == figures(16)
    split = ShardSplit(phantom_shards, "train", "lovt")
    phrases = {
        (box.phrase, record.key)
        for record in map(split.read, range(len(split)))
        for box in record.boxes
        if box.phrase and box.image == record.frontal_images()[0]
    }
    assert few["grounding_blind_phrases"] == len(phrases) > 3
