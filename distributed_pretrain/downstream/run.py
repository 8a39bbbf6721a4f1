"""`downstream`: a head on an encoder, trained as any run is, and judged on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_shards.command_line import DONE, GOES_ON
from data_shards.profiles import load_profile
from data_shards.starting import launcher_number
from distributed_pretrain.data.share import Share
from distributed_pretrain.downstream.examples import write_examples
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.head import Head
from distributed_pretrain.downstream.overlap import check_overlap
from distributed_pretrain.downstream.settings import JUDGED, DownstreamConfig
from distributed_pretrain.measures.examples import Examples
from distributed_pretrain.measures.metric import write_figures
from distributed_pretrain.pretrain.build import open_split
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.identity import identity_of
from distributed_pretrain.run_folder.intact import Owner
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.device import best_device
from distributed_pretrain.training.gallery import write_page
from distributed_pretrain.training.run import Parts, train


def run_downstream(profile: Path, overrides: Sequence[str]) -> int:
    """The exit status of a start: done and judged, or interrupted with a checkpoint saved."""
    config = load_profile(DownstreamConfig, profile, overrides)
    if not launcher_number("RANK"):
        check_overlap(config)
    if config.procedure is not None:
        from distributed_pretrain.downstream.task import run_task  # which trains by this file

        return DONE if run_task(config, config.procedure) else GOES_ON
    run = RunFolder(config.run_folder)
    store = FeatureStore(config.features, run.path)
    if not train_head(config, store):
        return GOES_ON
    if not launcher_number("RANK"):
        write_figures(judge_head(config, store), run.evaluation(*JUDGED))
    return DONE


def train_head(config: DownstreamConfig, store: FeatureStore) -> bool:
    """Train, or go on; see `train` for what is returned and raised."""
    return train(config, partial(build_parts, config, store))


def judge_head(config: DownstreamConfig, store: FeatureStore) -> dict[str, float]:
    """The figures of the best weights on the test split, by one process, in float32.

    Its best, median and worst image are drawn beside, and shown on a page with the figures.
    """
    split, checkpoint = JUDGED
    run = RunFolder(config.run_folder)
    share = Share(device=best_device())
    head = Head.of(config, share, store)
    like, owner = head.objective.state_dict(), Owner(config, identity_of(run))
    head.objective.load_state_dict(load_weights(run.checkpoint(checkpoint), like, owner))
    judged = open_split(config.data, split)
    validation = head.validation(judged)
    figures, measures = replace(validation, kinds=(*validation.kinds, Examples)).run()
    shown = [
        write_examples(head, judged, each.chosen(), each.scores)
        for each in measures
        if isinstance(each, Examples) and each.scores
    ]
    page = run.evaluation(*JUDGED).with_suffix(".html")
    lead = f"{config.protocol.name} on {config.data.shards}, {split} split: {run.path}"
    write_page(page, "What a head found", lead, figures, validation.metrics, shown)
    return figures


def build_parts(
    config: DownstreamConfig, store: FeatureStore, engine: Engine, run: RunFolder
) -> Parts:
    """What a run trains with on this rank. Raises InputError where head and encoder do not fit."""
    training, validation = open_split(config.data, "train"), open_split(config.data, "validate")
    head = Head.of(config, Share(engine.rank, engine.world_size, engine.device), store)
    return head.parts(run, training, validation, engine.autocast)
