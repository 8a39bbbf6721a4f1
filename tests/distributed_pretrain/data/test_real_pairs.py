"""Real X-rays with case text, from table to retrieval: a short run of what the README shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distributed_pretrain.run_folder.folder import RunFolder
from tests.paths import ROOT

if TYPE_CHECKING:
    from tests.tiny.run import Command

PAIRS = ROOT.parent / "shared" / "data" / "covid_pairs"


@pytest.mark.skipif(not PAIRS.is_dir(), reason=f"no real pairs at ../shared/data/{PAIRS.name}")
def test_real_pairs_go_from_a_table_to_retrieval(command: Command, tmp_path: Path) -> None:
    command.complete(
        command(
            *("build", "configs/shards/csv_pairs.yaml", f"output={tmp_path / 'shards'}"),
            *(f"source.table={PAIRS / 'pairs.csv'}", f"source.image_root={PAIRS / 'images'}"),
            "source.columns.report=clinical_notes",
            package="data_shards",
        )
    )
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
    evaluated = command("evaluate", run, "checkpoint=last", launcher=(sys.executable,))
    command.complete(evaluated)
    metrics = json.loads((run / "evaluation_test_last.json").read_text())
    assert metrics["samples"] == 32
    assert 0 < metrics["recall_at_10"] <= 1
    assert "grounding_cnr" not in metrics  # the table has no boxes
