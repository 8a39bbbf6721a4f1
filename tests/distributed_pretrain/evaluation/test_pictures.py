"""`evaluate RUN pictures=true`: files, a page with them inside, and TensorBoard."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distributed_pretrain.__main__ import main

pytestmark = pytest.mark.xdist_group("short_run")
DRAWN = {
    "attention_weights",
    "embedding_map",
    "nearest_regions",
    "region_similarity",
    "region_weights",
    "sentence_maps",
    "similarity_matrix",
}


def test_a_run_is_shown(short_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(short_run, tmp_path / "run", symlinks=True)
    assert main(["evaluate", str(run), "split=validate", "pictures=true"]) == 0
    results = run / "evaluation_validate_best.json"
    assert {each.stem for each in results.with_suffix("").glob("*.png")} == DRAWN
    page = results.with_suffix(".html").read_text()
    assert page.count('src="data:image/png;base64,') == len(DRAWN)
    assert page.count("<tr>") > 5
    assert not re.search(r"https?:|url\(|<script", page)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = {f"pictures/{results.stem}/{name}" for name in DRAWN}
    assert shown <= set(events.Tags()["images"])
