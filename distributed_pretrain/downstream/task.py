"""A task by its procedure: a learning rate is tuned, then runs of several seeds are judged.

<run_folder>/task.json                   what is known so far
<run_folder>/learning_rates/0.003/       a run for each rate that is tried
<run_folder>/seeds/0/                    a run for each seed, at the rate that was taken
<run_folder>/evaluation_test_best.json   the means
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.lock import InUseError
from data_shards.processes import InterruptionFlag
from data_shards.records.study import SPLITS, Split
from distributed_pretrain.data.share import Share
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.head import Head
from distributed_pretrain.downstream.results import new_result, note_result, read_result
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
from distributed_pretrain.run_folder.task_folder import TaskFolder, turn
from distributed_pretrain.training.run import refuse_unmeasured

SECONDS_BETWEEN_LOOKS = 5.0


def run_task(config: DownstreamConfig, procedure: ProcedureConfig) -> bool:
    """Whether all wanted runs are done; False when a signal ended one, which goes on when repeated.

    Runs that are done are not made again. Several starts may share a task, on one machine or many:
    each makes the runs that no other has in hand, and waits for the rest of what it needs. Raises
    InputError, before anything is trained, for an encoder or data that the task cannot use, and for
    the folder of another one.
    """
    run, seeds = TaskFolder(config.run_folder), config.wanted_seeds
    result = read_result(config) or new_result(config)
    means = run.evaluation(*JUDGED)
    if result.has(seeds):
        # The start that made the last run may have been killed before it wrote these.
        if result.has(procedure.seeds) and not read_figures(means):
            write_figures(result.means(), means)
        print(f"{config.run_folder}: already complete", file=sys.stderr)
        return True
    metric = _checked(config)
    # Before anything is tried: what another config has tried is no part of this search.
    note_result(config)
    store = FeatureStore(config.features, run.path)
    searched = _search(config, procedure, metric, store)
    if searched is None:
        return False
    rate, found = searched
    note_result(config, learning_rate=rate, searched=found)

    def judged(own: DownstreamConfig) -> dict[str, float] | None:
        if not train_head(own, store):
            return None
        figures = judge_head(own, store)
        if metric.name not in figures:
            raise InputError(
                f"training.best_metric={metric.name}: the test split of {config.data.shards} "
                "has none: choose another metric, or other shards"
            )
        return figures

    runs = [
        _single(config, run.part("seeds", seed).path, seed=seed, learning_rate=rate)
        for seed in seeds
    ]
    for own, figures in _each(run, runs, JUDGED, judged):
        result = note_result(config, runs={str(own.seed): figures})
        _say(f"{run.path}: seed {own.seed}: {metric.title} {metric.show(figures[metric.name])}")
    if result.has(procedure.seeds):
        with turn(run.path):
            write_figures(result.means(), means)
    return result.has(seeds)


def _search(
    config: DownstreamConfig, procedure: ProcedureConfig, metric: Metric, store: FeatureStore
) -> tuple[float, dict[str, float]] | None:
    """The best rate, with the validation figure of each; None if a run was interrupted."""
    rates = procedure.learning_rates
    if len(rates) == 1:
        return rates[0], {}
    run, found = TaskFolder(config.run_folder), dict[float, float]()

    def tried(own: DownstreamConfig) -> dict[str, float] | None:
        if not train_head(own, store):
            return None
        best = RunFolder(own.run_folder).best_validation()
        return {name: float(each) for name, each in best.items()}

    runs = [
        _single(config, run.part("learning_rates", rate).path, seed=config.seed, learning_rate=rate)
        for rate in rates
    ]
    for own, figures in _each(run, runs, TUNED, tried):
        rate = own.optimizer.learning_rate
        found[rate] = figures[metric.name]
        _say(f"{run.path}: learning rate {rate:g}: {metric.title} {metric.show(found[rate])}")
    if len(found) < len(rates):
        return None
    in_order = {rate: found[rate] for rate in rates}
    return best_rate(in_order, metric), {str(rate): each for rate, each in in_order.items()}


def _each(
    task: TaskFolder,
    runs: Sequence[DownstreamConfig],
    judged_by: tuple[Split, str],
    make: Callable[[DownstreamConfig], dict[str, float] | None],
) -> Iterator[tuple[DownstreamConfig, dict[str, float]]]:
    """Each run with its figures, which `make` gives where none are kept yet.

    Those that another start has in hand come last. Ends early when this one is told to end.
    """
    waiting, told = list(runs), set[str]()
    while waiting:
        held = list[DownstreamConfig]()
        for own in waiting:
            run = RunFolder(own.run_folder)
            with ExitStack() as hand:
                try:
                    hand.enter_context(task.in_hand(run))
                except InUseError as error:
                    held.append(own)
                    if str(error) not in told:
                        _say(str(error))
                        told.add(str(error))
                    continue
                figures = read_figures(run.evaluation(*judged_by))
                if not figures:
                    made = make(own)
                    if made is None:
                        return
                    figures = made
                    keep_figures(figures, run.evaluation(*judged_by))
            yield own, figures
        if held and len(held) == len(waiting) and _told_to_end(SECONDS_BETWEEN_LOOKS):
            return
        waiting = held


def _told_to_end(seconds: float) -> bool:
    """Wait; whether a signal came meanwhile."""
    deadline = time.monotonic() + seconds
    with InterruptionFlag() as told:
        while not told.raised and time.monotonic() < deadline:
            time.sleep(0.1)
    return told.raised


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
    changes = {"run_folder": folder, "seed": seed, "optimizer": optimizer}
    single = {"procedure": None, "only_seeds": ()}
    return config.model_copy(update={**changes, **single})


def _say(line: str) -> None:
    print(line, file=sys.stderr)
