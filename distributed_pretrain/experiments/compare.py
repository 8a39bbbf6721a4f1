"""`compare`: every method of a comparison trained, evaluated and told on one page.

Each run is a process of its own: python -m distributed_pretrain.experiments JOB.json
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from pydantic_core import to_json

from data_shards.command_line import DONE, FAILED, GOES_ON, shell_line, split_dotted
from data_shards.files.atomic import try_to_write, write_bytes_atomically, write_text_atomically
from data_shards.processes import available_cores
from data_shards.profiles import load_profile
from distributed_pretrain.evaluation.evaluate import evaluate_run
from distributed_pretrain.experiments.expectations import refuse_unknown_metrics
from distributed_pretrain.experiments.grid.pool import ModuleRun, Outcome, build_shards, run_all
from distributed_pretrain.experiments.pages.comparison import write_page
from distributed_pretrain.experiments.results import RunResult, collect, fingerprint, read_result
from distributed_pretrain.experiments.settings import ComparisonConfig, RunJob, jobs_of
from distributed_pretrain.measures.grounding import Grounding
from distributed_pretrain.measures.region_similarity import RegionSimilarity
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.run_folder.folder import RunFolder


def run_compare(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status: 0 when all wanted runs are done, 1 when one failed, 75 when interrupted.

    Runs whose figures are there are skipped, others go on where they stopped. Dotted overrides
    (`training.max_steps=50`) are those of every pre-training profile. The page is written in any
    case, from the figures there are.
    """
    own, of_runs = split_dotted(overrides)
    config = load_profile(ComparisonConfig, profile, own)
    refuse_unknown_metrics(config.bars)
    for path in (config.output / "results.json", config.page):
        try_to_write(path)
    outcome = _make_missing(config, jobs_of(config, tuple(of_runs)))
    every = config.model_copy(update={"only": ()})
    results = collect(config, jobs_of(every, tuple(of_runs)))
    told = to_json({"title": config.title, "methods": results}, indent=1, inf_nan_mode="null")
    write_bytes_atomically(config.output / "results.json", told + b"\n")
    words = ("python", "-m", "distributed_pretrain", "compare", profile, *overrides)
    print(write_page(config, results, command=shell_line(*words)))
    for line in outcome.failed:
        print(f"failed: {line}", file=sys.stderr)
    if outcome.interrupted:
        return GOES_ON
    return FAILED if outcome.failed else DONE


def _make_missing(config: ComparisonConfig, jobs: Sequence[RunJob]) -> Outcome:
    missing = [job for job in jobs if read_result(job) is None]
    if not missing:
        return Outcome()
    build_shards(config.shards_profile, config.shards)
    at_once = config.processes or max(1, available_cores() // config.threads)
    print(
        f"{len(missing)} runs to make ({len(jobs) - len(missing)} are there), {at_once} at a "
        f"time, in {config.output}",
        file=sys.stderr,
    )
    runs = []
    for job in missing:
        job.folder.mkdir(parents=True, exist_ok=True)
        path = job.folder / "job.json"
        write_text_atomically(path, job.model_dump_json(indent=1) + "\n")
        words = (__package__, str(path))
        name = f"{job.method} seed {job.seed}"
        runs.append(ModuleRun(name, job.folder, words, threads=config.threads))
    return run_all(runs, at_once=at_once)


def run_job(path: Path) -> int:
    """Pre-train, evaluate and write the figures down, as a file says; the exit status as always."""
    job = RunJob.model_validate_json(path.read_bytes())
    if not pretrain(job.pretrain):
        return GOES_ON
    pretrain_cpu_seconds = time.process_time()
    evaluation = evaluate_run(job.folder, job.evaluate, more=(RegionSimilarity,))
    grounding = next((each for each in evaluation.measures if isinstance(each, Grounding)), None)
    trained = RunFolder(job.folder).progress()
    gpu = torch.cuda.is_available()
    result = RunResult(
        job=fingerprint(job),
        method=job.method,
        seed=job.seed,
        metrics=evaluation.metrics,
        by_phrase=grounding.by_phrase if grounding is not None else None,
        region_similarity=evaluation.of(RegionSimilarity).by_distance,
        steps=trained.step if trained is not None else 0,
        global_batch=job.pretrain.data.global_batch,
        image_size_px=job.pretrain.data.image_size_px,
        pretrain_cpu_seconds=pretrain_cpu_seconds,
        evaluate_cpu_seconds=time.process_time() - pretrain_cpu_seconds,
        machine=torch.cuda.get_device_name() if gpu else f"CPU ({platform.machine()})",
        judged_on=date.today().isoformat(),
    )
    write_text_atomically(job.result, result.model_dump_json(indent=1) + "\n")
    return DONE
