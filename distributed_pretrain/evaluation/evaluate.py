"""`evaluate`: what a run's encoder is worth, on a held-out split of any shards."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.profiles import parse_overrides, validate
from data_shards.records.study import Split, StudyRecord
from distributed_pretrain.data.loader import EvaluationLoader, Share
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.evaluation.embed import embed
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.measures.base import Context, LearningMeasure, Measure, make_measures
from distributed_pretrain.measures.catalog import EVALUATION
from distributed_pretrain.pretrain.trained import TrainedMethod, load_method
from distributed_pretrain.run_folder.folder import RunFolder

MeasureT = TypeVar("MeasureT", bound=Measure)


@dataclass(frozen=True)
class Evaluation:
    """Figures (fractions, and contrasts for grounding), and the measures that have the details."""

    samples: int
    metrics: dict[str, float]
    measures: list[Measure]

    def of(self, kind: type[MeasureT]) -> MeasureT:
        """The measure of a kind."""
        return next(each for each in self.measures if isinstance(each, kind))


def run_evaluate(run_folder: Path, overrides: Sequence[str]) -> int:
    """Print the figures of a run and write them to its `evaluation_<split>_<checkpoint>.json`."""
    config = validate(EvaluateConfig, parse_overrides(overrides), where="evaluate")
    metrics = evaluate_run(run_folder, config).metrics
    path = config.results(RunFolder(run_folder))
    write_text_atomically(path, json.dumps(metrics, indent=1))
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:{width}s} {value:8.4f}")
    print(f"written to {path}", file=sys.stderr)
    return DONE


def evaluate_run(
    run_folder: Path, config: EvaluateConfig, *, more: tuple[type[Measure], ...] = ()
) -> Evaluation:
    """Retrieval, grounding, linear segmentation and classification, where the shards allow it.

    `untrained` is the same encoder as the run began with; `more` measures are taken besides. Raises
    InputError for a folder without run, checkpoint or samples.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("evaluate runs in one process: start it without accelerate launch")
    trained = load_method(run_folder, config.checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained.method.to(device).eval()
    return _Evaluator(trained, config, device).evaluate(more)


@dataclass(frozen=True)
class _Evaluator:
    trained: TrainedMethod
    config: EvaluateConfig
    device: torch.device

    @torch.no_grad()
    def evaluate(self, more: tuple[type[Measure], ...]) -> Evaluation:
        method = self.trained.method
        judged, labelled = self._loader(self.config.split), self._loader("train")
        measures = make_measures((*EVALUATION, *more), self._context(judged, labelled))
        learning = [each for each in measures if isinstance(each, LearningMeasure)]
        most = self.config.labelled_studies * self.config.labelled_subsets
        with closing(embed(method, labelled, most=most, features_only=True)) as batches:
            for batch, outputs in batches:
                for each in learning:
                    each.learn(batch, outputs)
        samples = 0
        for batch, outputs in embed(method, judged):
            samples += int(batch.sample_mask.sum())
            for measure in measures:
                measure.update(batch, outputs)
        metrics = {"samples": float(samples)}
        for measure in measures:
            metrics |= measure.compute()
        return Evaluation(samples, metrics, measures)

    def _context(self, *loaders: EvaluationLoader) -> Context:
        splits = {loader.split.split: loader.split for loader in loaders}
        positions = {
            (name, split.key(position)): position
            for name, split in splits.items()
            for position in range(len(split))
        }

        def read(record: StudyRecord, member: str) -> bytes:
            position = positions[record.split, record.key]
            return splits[record.split].read_member(position, member)

        data = self.trained.config.data
        return Context(
            objective=self.trained.method,
            device=self.device,
            text_policy=data.text_policy,
            labels=self.config.labels,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
            labelled_studies=self.config.labelled_studies,
            seed=self.trained.config.seed,
            thorough=True,
            encode=self.trained.tokenizer.encode,
            read=read,
        )

    def _loader(self, split: Split) -> EvaluationLoader:
        data = self.trained.config.data
        shards = ShardSplit(self.config.shards or data.shards, split, data.text_policy)
        # Embedding needs no labels, which other shards may not have, and no second view.
        views = "frontal" if data.views == "two_augmentations" else data.views
        data = data.model_copy(update={"labels": (), "views": views})
        return EvaluationLoader(shards, self.trained.tokenizer, data, Share(device=self.device))
