"""A task by its procedure: a learning rate is tuned, then runs of several seeds are judged.

<run_folder>/task.json                   what is known so far
<run_folder>/learning_rates/0.003/       a run for each rate that is tried
<run_folder>/seeds/0/                    a run for each seed, at the rate that was taken
<run_folder>/evaluation_test_best.json   the means
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from data_shards.errors import InputError
from data_shards.records.study import SPLITS
from distributed_pretrain.data.loader import Share
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.head import Head
from distributed_pretrain.downstream.results import (
    new_result,
    read_result,
    write_result,
)
from distributed_pretrain.downstream.run import judge_head, train_head
from distributed_pretrain.downstream.settings import (
    JUDGED,
    TUNED,
    DownstreamConfig,
    ProcedureConfig,
)
from distributed_pretrain.measures.metric import Metric, keep_figures, read_figures, write_figures
from distributed_pretrain.pretrain.build import open_split
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.task_folder import TaskFolder
from distributed_pretrain.training.run import refuse_unmeasured


def run_task(config: DownstreamConfig, procedure: ProcedureConfig) -> bool:
    """Whether all runs are done; False when a signal ended one, which goes on when repeated.

    Runs that are done are not made again. Raises InputError, before anything is trained, for an
    encoder or data that the task cannot use, and for the folder of another one.
    """
    run = TaskFolder(config.run_folder)
    result = read_result(config) or new_result(config)
    if result.has(procedure.seeds):
        # The start that made the last run may have been killed before it wrote these.
        if not read_figures(run.evaluation(*JUDGED)):
            write_figures(result.means(), run.evaluation(*JUDGED))
        print(f"{config.run_folder}: already complete", file=sys.stderr)
        return True
    metric = _checked(config)
    # Before anything is tried: what another config has tried is no part of this search.
    write_result(config, result)
    store = FeatureStore(config.features, run.features)
    searched = _search(config, procedure, metric, store)
    if searched is None:
        return False
    rate, found = searched
    result = result.model_copy(update={"learning_rate": rate, "searched": found})
    write_result(config, result)
    for seed in procedure.seeds:
        own = _single(config, run.part("seeds", seed).path, seed=seed, learning_rate=rate)
        figures = read_figures(RunFolder(own.run_folder).evaluation(*JUDGED))
        if not figures:
            if not train_head(own, store):
                return False
            figures = judge_head(own, store)
            if metric.name not in figures:
                raise InputError(
                    f"training.best_metric={metric.name}: the test split of {config.data.shards} "
                    "has none: choose another metric, or other shards"
                )
            keep_figures(figures, RunFolder(own.run_folder).evaluation(*JUDGED))
        result = result.model_copy(update={"runs": {**result.runs, str(seed): figures}})
        write_result(config, result)
        _say(f"{run.path}: seed {seed}: {metric.title} {metric.show(figures[metric.name])}")
    write_figures(result.means(), run.evaluation(*JUDGED))
    return True


def _search(
    config: DownstreamConfig, procedure: ProcedureConfig, metric: Metric, store: FeatureStore
) -> tuple[float, dict[str, float]] | None:
    """The best rate, with the validation figure of each; None if a run was interrupted."""
    rates = procedure.learning_rates
    if len(rates) == 1:
        return rates[0], {}
    run, found = TaskFolder(config.run_folder), dict[float, float]()
    for rate in rates:
        own = _single(
            config, run.part("learning_rates", rate).path, seed=config.seed, learning_rate=rate
        )
        tried = RunFolder(own.run_folder)
        figures = read_figures(tried.evaluation(*TUNED))
        if not figures:
            if not train_head(own, store):
                return None
            figures = {name: float(each) for name, each in tried.best_validation().items()}
            keep_figures(figures, tried.evaluation(*TUNED))
        found[rate] = figures[metric.name]
        _say(f"{run.path}: learning rate {rate:g}: {metric.title} {metric.show(found[rate])}")
    return best_rate(found, metric), {str(rate): figure for rate, figure in found.items()}


def best_rate(figures: Mapping[float, float], metric: Metric) -> float:
    """The first of the rates that no later one beats: of equal ones that which was tried first."""
    best, best_figure = next(iter(figures.items()))
    for rate, figure in figures.items():
        if metric.improves(figure, best_figure):
            best, best_figure = rate, figure
    return best


def _checked(config: DownstreamConfig) -> Metric:
    """The metric that a rate is chosen by, once all is there that a run will ask for."""
    store = FeatureStore(config.features.model_copy(update={"keep": False}), Path())
    unkept = config.model_copy(update={"features": store.config})
    head = Head.of(unkept, Share(), store)
    for split in SPLITS:
        judged = head.validation(open_split(config.data, split))
    refuse_unmeasured(config, judged.metrics)
    return judged.metrics[config.training.best_metric]


def _single(
    config: DownstreamConfig, folder: Path, *, seed: int, learning_rate: float
) -> DownstreamConfig:
    optimizer = config.optimizer.model_copy(update={"learning_rate": learning_rate})
    changes = {"run_folder": folder, "seed": seed, "optimizer": optimizer, "procedure": None}
    return config.model_copy(update=changes)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
