"""The card of an export says what these weights are and what was measured of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed_pretrain import load
from distributed_pretrain.handover.card import model_card
from distributed_pretrain.run_folder.folder import RunFolder

pytestmark = pytest.mark.xdist_group("short_run")  # a fixture of one process


def test_it_has_what_was_measured_of_the_same_weights(short_run: Path) -> None:
    model = load(short_run, checkpoint="last")
    run = RunFolder(short_run)
    figures = short_run / "evaluation_validate_last.json"
    figures.write_text(json.dumps({"samples": 20.0, "recall_at_5": 0.25}))
    try:
        # By its path, and by the name of its step: the same weights.
        step = run.checkpoint("last")
        for name in ("last", str(run.checkpoints / "last"), step.name):
            card = model_card(model, run, name, to="onnx", usage="x")
            assert "| R@5 | 25.0 % |" in card
            assert "`evaluation_validate_last`, 20 studies" in card
            assert f"step {run.saved_step()} (`{Path(name).name}`) of a run" in card
            assert str(short_run) not in card
        untrained = model_card(model, run, "untrained", to="onnx", usage="x")
    finally:
        figures.unlink()
    assert "the weights that it begins with" in untrained
    assert "Nothing yet" in untrained
