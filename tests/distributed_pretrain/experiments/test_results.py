"""Figures of runs on disk: those that cannot be shown are none, and the run is judged again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from distributed_pretrain.experiments import results
from distributed_pretrain.experiments.results import RunResult, read_result
from distributed_pretrain.experiments.settings import RunJob
from distributed_pretrain.measures.region_similarity import PERCENTILES, SimilarityAtDistance


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunJob:
    """A job with a result."""
    monkeypatch.setattr(results, "fingerprint", lambda _: "x")
    cosines = SimilarityAtDistance(0.1, 4, 0.5, tuple(n / 100 for n in range(PERCENTILES)))
    result = RunResult(
        job="x",
        method="lovt",
        seed=0,
        metrics={"samples": 4.0},
        region_similarity=(cosines,),
        steps=1,
        global_batch=2,
        image_size_px=64,
        pretrain_cpu_seconds=1.0,
        evaluate_cpu_seconds=1.0,
        machine="CPU",
    )
    path = tmp_path / "result.json"
    path.write_text(result.model_dump_json())
    return cast(RunJob, SimpleNamespace(result=path))


def test_a_result_reads_back(job: RunJob) -> None:
    result = read_result(job)
    assert result is not None
    assert result.metrics == {"samples": 4.0}


ODD: dict[str, Callable[[dict[str, Any]], object]] = {
    "no samples": lambda document: document["metrics"].clear(),
    "samples that are no number": lambda document: document["metrics"].update(samples=None),
    "few percentiles": lambda document: document["region_similarity"][0].update(percentiles=[0.1]),
    "endless cosines": lambda document: document["region_similarity"][0].update(
        percentiles=[float("inf")] * PERCENTILES
    ),
    "no pairs": lambda document: document["region_similarity"][0].update(pairs=0),
    "a distance that is no number": lambda document: document["region_similarity"][0].update(
        distance=float("nan")
    ),
    "another shape": lambda document: document.update(metrics=[]),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD)
def test_an_odd_result_is_none(change: Callable[[dict[str, Any]], object], job: RunJob) -> None:
    document = json.loads(job.result.read_text())
    change(document)
    job.result.write_text(json.dumps(document))
    assert read_result(job) is None


@pytest.mark.parametrize("payload", [b"", bytes(300), b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_damaged_result_is_none(payload: bytes, job: RunJob) -> None:
    job.result.write_bytes(payload)
    assert read_result(job) is None
