"""`evaluate`: what a run's encoder is worth, on a held-out split of any shards."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.files.atomic import remedy_of, try_to_write
from data_shards.profiles import parse_overrides, validate
from data_shards.records.study import Split
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader, Share
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.evaluation.settings import EvaluateConfig
from distributed_pretrain.measures.base import Context, FeatureOutputs, Measure, make_measures
from distributed_pretrain.measures.catalog import EVALUATION
from distributed_pretrain.measures.metric import write_figures
from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain.build import TrainedMethod, load_method
from distributed_pretrain.ranks import launcher_number
from distributed_pretrain.run_folder.folder import RunFolder

MeasureT = TypeVar("MeasureT", bound=Measure)


@dataclass(frozen=True, kw_only=True)
class ImageTextFeatureOutputs(FeatureOutputs, ImageTextOutputs):
    """Embeddings of images and reports beside the feature map."""


@dataclass(frozen=True)
class Evaluation:
    """Figures (fractions, and contrasts for grounding), and the measures that have the details."""

    samples: int
    metrics: dict[str, float]
    measures: list[Measure]
    context: Context

    def of(self, kind: type[MeasureT]) -> MeasureT:
        """The measure of a kind."""
        return next(each for each in self.measures if isinstance(each, kind))


def run_evaluate(run_folder: Path, overrides: Sequence[str]) -> int:
    """Print the figures of a run and write them to its `evaluation_<split>_<checkpoint>.json`."""
    config = validate(EvaluateConfig, parse_overrides(overrides), where="evaluate")
    run = RunFolder(run_folder)
    run.refuse_missing(checkpoint=config.checkpoint)
    results = config.results(run)
    try:
        try_to_write(results)
    except OSError as error:
        raise InputError(
            f"{results}: cannot be written ({error.strerror}): {remedy_of(error)}, or pass "
            "output=FILE.json"
        ) from error
    metrics = evaluate_run(run_folder, config).metrics
    write_figures(metrics, results)
    return DONE


@torch.no_grad()
def evaluate_run(
    run_folder: Path, config: EvaluateConfig, *, more: tuple[type[Measure], ...] = ()
) -> Evaluation:
    """Retrieval, grounding, linear segmentation and classification, where the shards allow it.

    `more` measures are taken besides. Raises InputError without run, checkpoint or samples.
    """
    if (launcher_number("WORLD_SIZE") or 1) > 1:
        raise InputError("evaluate runs in one process: start it without accelerate launch")
    trained = load_method(run_folder, config.checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = trained.method.to(device).eval()
    judged, labelled = (_loader(trained, config, each, device) for each in (config.split, "train"))
    context = _context(trained, config, device, [judged.split, labelled.split])
    measures = make_measures((*EVALUATION, *more), context)
    most = config.labelled_studies * config.labelled_subsets
    with closing(embed(method, labelled, most=most, features_only=True)) as batches:
        for batch, outputs in batches:
            for measure in measures:
                measure.learn(batch, outputs)
    samples = 0
    for batch, outputs in embed(method, judged):
        samples += int(batch.sample_mask.sum())
        for measure in measures:
            measure.update(batch, outputs)
    metrics = {"samples": float(samples)}
    for measure in measures:
        metrics |= measure.compute()
    return Evaluation(samples, metrics, measures, context)


@torch.no_grad()
def embed(
    method: Method,
    loader: EvaluationLoader,
    *,
    most: int | None = None,
    features_only: bool = False,
) -> Generator[tuple[Batch, FeatureOutputs]]:
    """Each batch of a split, of up to `most` samples in all, with what the method makes of it."""
    left = len(loader.split) if most is None else most
    for batch in loader.batches():
        wanted = torch.arange(len(batch.keys), device=batch.sample_mask.device) < left
        batch = replace(batch, sample_mask=batch.sample_mask & wanted)
        yield batch, outputs_of(method, batch, features_only=features_only)
        left -= len(batch.keys)
        if left <= 0:
            return


def outputs_of(method: Method, batch: Batch, *, features_only: bool = False) -> FeatureOutputs:
    """What an evaluation reads of one batch; `features_only` leaves the embeddings out."""
    features = method.feature_map(batch.images)
    plain = FeatureOutputs(sample_mask=batch.sample_mask, feature_map=features)
    if features_only or not isinstance(method, ImageTextMethod):
        return plain
    images, reports = method.embed_images(batch), method.embed_reports(batch.report)
    return ImageTextFeatureOutputs(**vars(plain), images=images, reports=reports)


def _loader(
    trained: TrainedMethod, config: EvaluateConfig, split: Split, device: torch.device
) -> EvaluationLoader:
    data = trained.config.data
    shards = ShardSplit(config.shards or data.shards, split, data.text_policy)
    # Embedding needs no labels, which other shards may not have, and no second view.
    views = "frontal" if data.views == "two_augmentations" else data.views
    data = data.model_copy(update={"labels": (), "views": views})
    return EvaluationLoader(shards, trained.tokenizer, data, Share(device=device))


def _context(
    trained: TrainedMethod, config: EvaluateConfig, device: torch.device, splits: list[ShardSplit]
) -> Context:
    members = {
        (split.split, split.key(position)): partial(split.read_member, position)
        for split in splits
        for position in range(len(split))
    }
    data = trained.config.data
    return Context(
        objective=trained.method,
        device=device,
        text_policy=data.text_policy,
        labels=config.labels,
        crop_fraction=data.augmentation.evaluation_crop_fraction,
        labelled_studies=config.labelled_studies,
        seed=trained.config.seed,
        thorough=True,
        encode=trained.tokenizer.encode,
        read=lambda record, member: members[record.split, record.key](member),
    )
