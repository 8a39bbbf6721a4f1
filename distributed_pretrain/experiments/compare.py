"""`compare`: every method of a comparison trained, evaluated and told on one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data_shards.command_line import GOES_ON, split_dotted
from data_shards.processes import available_cores
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.pages.comparison import write_page
from distributed_pretrain.experiments.pool import Outcome, run_jobs
from distributed_pretrain.experiments.results import collect, read_result, write_results
from distributed_pretrain.experiments.settings import ComparisonConfig, jobs_of
from distributed_pretrain.experiments.shards_command import build_shards


def run_compare(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status: 0 when all wanted runs are done, 1 when one failed, 75 when interrupted.

    Runs whose figures are there are skipped, others go on where they stopped. Dotted overrides
    (`training.max_steps=50`) are those of every pre-training profile. The page is written in any
    case, from the figures there are.
    """
    own, of_runs = split_dotted(overrides)
    config = load_profile(ComparisonConfig, profile, own)
    jobs = jobs_of(config, tuple(of_runs))
    missing = [job for job in jobs if read_result(job) is None]
    outcome = Outcome((), interrupted=False)
    if missing:
        build_shards(config.shards_profile, config.shards)
        processes = config.processes or max(1, available_cores() // config.threads)
        print(
            f"{len(missing)} runs to make ({len(jobs) - len(missing)} are there), {processes} at a "
            f"time, in {config.output}",
            file=sys.stderr,
        )
        outcome = run_jobs(missing, processes=processes, threads=config.threads)
    every = config.model_copy(update={"only": ()})
    results = collect(config, jobs_of(every, tuple(of_runs)))
    write_results(config.output / "results.json", config.title, results)
    command = " ".join(["python -m distributed_pretrain compare", str(profile), *overrides])
    print(write_page(config, results, command=command))
    for line in outcome.failed:
        print(f"failed: {line}", file=sys.stderr)
    if outcome.interrupted:
        return GOES_ON
    return 1 if outcome.failed else 0
