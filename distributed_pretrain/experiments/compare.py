"""`compare`: every method of a comparison trained, evaluated and told on one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.command_line import DONE, FAILED, GOES_ON, split_dotted
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import available_cores
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.grid.pool import ModuleRun, Outcome, build_shards, run_all
from distributed_pretrain.experiments.pages.comparison import write_page
from distributed_pretrain.experiments.results import collect, read_result, write_results
from distributed_pretrain.experiments.settings import ComparisonConfig, RunJob, jobs_of


def run_compare(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status: 0 when all wanted runs are done, 1 when one failed, 75 when interrupted.

    Runs whose figures are there are skipped, others go on where they stopped. Dotted overrides
    (`training.max_steps=50`) are those of every pre-training profile. The page is written in any
    case, from the figures there are.
    """
    own, of_runs = split_dotted(overrides)
    config = load_profile(ComparisonConfig, profile, own)
    outcome = _make_missing(config, jobs_of(config, tuple(of_runs)))
    every = config.model_copy(update={"only": ()})
    results = collect(config, jobs_of(every, tuple(of_runs)))
    write_results(config.output / "results.json", config.title, results)
    command = " ".join(["python -m distributed_pretrain compare", str(profile), *overrides])
    print(write_page(config, results, command=command))
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
    return run_all([_run_of(job, config.threads) for job in missing], at_once=at_once)


def _run_of(job: RunJob, threads: int) -> ModuleRun:
    """A process that reads `job` from a file in its folder."""
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / "job.json"
    write_text_atomically(path, job.model_dump_json(indent=1) + "\n")
    words = ("distributed_pretrain.experiments.one_run", str(path))
    return ModuleRun(f"{job.method} seed {job.seed}", job.folder, words, threads=threads)
