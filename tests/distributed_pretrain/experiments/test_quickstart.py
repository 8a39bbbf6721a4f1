"""The quickstart end to end, on a phantom of a few dozen studies and for a few steps."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.tiny.run import Command


@pytest.mark.xdist_group("quickstart")
def test_the_quickstart_goes_from_nothing_to_a_page_of_results(
    tmp_path: Path, command: Command
) -> None:
    profile = tmp_path / "shards.yaml"
    profile.write_text(
        f"extends: {ROOT / 'configs/shards/phantom_quickstart.yaml'}\n"
        f"phantom: {{archive: {tmp_path / 'archive'}, image_size_px: 64, train_studies: 32,"
        " validate_studies: 8, test_studies: 12}\n"
        "longest_side_px: 64\n"
    )
    words = [
        *("quickstart", f"shards_profile={profile}", f"output={tmp_path / 'out'}"),
        *(f"data.shards={tmp_path / 'shards'}", "data.image_size_px=64", "data.global_batch=8"),
        *("training.max_steps=6", "training.validate_every_steps=3"),
        "method.image_encoder.width=0.125",
    ]
    for _ in range(2):  # the second time everything is there already
        process = command(*words)
        said = command.complete(process)
        assert "tensorboard --logdir" in process.printed
    assert "already complete" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    pointing = {"grounding_pointing", "grounding_pointing_focal"}
    names = {"recall_at_1", "recall_at_5", "grounding_cnr_gain", "linear_dice", *pointing}
    assert {key: set(value) for key, value in summary.items()} == {
        "untrained": names,
        "trained": names,
        "blind maps": pointing,
    }
    assert all(0 <= summary["trained"][name] <= 1 for name in names - {"grounding_cnr_gain"})
    page = (tmp_path / "out" / "index.html").read_text()
    HTMLParser().feed(page)
    assert f"{100 * summary['trained']['recall_at_5']:.1f}" in page
