"""A run is judged on a store's shards as on those of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from distributed_pretrain.evaluation.evaluate import evaluate_run
from distributed_pretrain.evaluation.settings import EvaluateConfig, refuse_what_cannot_start
from distributed_pretrain.run_folder.folder import RunFolder
from tests.data_shards.remote.web_store import serving

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.xdist_group("short_run")


def test_the_figures_are_those_of_the_folder(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own = Path(yaml.safe_load((short_run / "config.yaml").read_text())["data"]["shards"])
    own_shards = EvaluateConfig(split="validate", labelled_studies=8)
    with serving(own) as store:
        there = EvaluateConfig(shards=store.address, split="validate", labelled_studies=8)
        refuse_what_cannot_start(there, short_run, 1)
        assert there.results(RunFolder(short_run)).name == "evaluation_validate_best.json"
        metrics = evaluate_run(short_run, there).metrics
    assert store.asked["train-000000.tar"] == 1
    assert metrics == evaluate_run(short_run, own_shards).metrics
