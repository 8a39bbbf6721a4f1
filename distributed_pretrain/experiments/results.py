"""What a comparison has measured so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from pydantic import ValidationError

from data_shards.files.regular import read_regular
from data_shards.profiles import Config
from distributed_pretrain.experiments.settings import ComparisonConfig, RunJob
from distributed_pretrain.measures.by_phrase import ByPhrase
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.region_similarity import PERCENTILES, SimilarityAtDistance


class RunResult(Config):
    """Figures of one run: fractions, and contrasts for grounding.

    `job` is a hash of all settings it was made with. `by_phrase` are those of phrases one by one,
    where any have boxes. `pretrain_cpu_seconds` and `evaluate_cpu_seconds` count all threads, of
    the last start of the run where there were several; `judged_on` is the day, YYYY-MM-DD.
    """

    job: str
    method: str
    seed: int
    metrics: dict[str, float]
    by_phrase: ByPhrase | None = None
    region_similarity: tuple[SimilarityAtDistance, ...]
    steps: int
    global_batch: int
    image_size_px: int
    pretrain_cpu_seconds: float
    evaluate_cpu_seconds: float
    machine: str
    judged_on: str = ""


Results: TypeAlias = dict[str, tuple[RunResult, ...]]


def fingerprint(job: RunJob) -> str:
    """A hash of what decides a run's figures; where its folder lies does not."""
    pretrain = job.pretrain.model_copy(update={"run_folder": Path()})
    text = job.model_copy(update={"pretrain": pretrain}).model_dump_json()
    return sha256(text.encode()).hexdigest()


def read_result(job: RunJob) -> RunResult | None:
    """The figures of a run of exactly these settings; None when there are none yet.

    Damaged ones are none: the run is judged again.
    """
    try:
        result = RunResult.model_validate_json(read_regular(job.result))
    except (FileNotFoundError, ValidationError):
        return None
    return result if result.job == fingerprint(job) and _can_be_shown(result) else None


def _can_be_shown(result: RunResult) -> bool:
    """Whether the page finds what it draws; NaN is drawn as nothing."""
    cosines = (each.percentiles for each in result.region_similarity)
    whole = all(len(each) == PERCENTILES and not any(map(math.isinf, each)) for each in cosines)
    pairs = all(
        each.pairs > 0 and math.isfinite(each.distance) for each in result.region_similarity
    )
    return whole and pairs and math.isfinite(result.metrics.get("samples", math.nan))


def collect(config: ComparisonConfig, jobs: Sequence[RunJob]) -> Results:
    """The results there are, by method in the order of the table and then by seed."""
    found = [result for job in jobs if (result := read_result(job))]
    names = [method.name for method in config.methods]
    return {name: tuple(each for each in found if each.method == name) for name in names}


def values_of(results: Sequence[RunResult], metric: Metric) -> dict[int, float]:
    """A metric by seed, of the runs that have it."""
    found = {each.seed: each.metrics.get(metric.name, math.nan) for each in results}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}
