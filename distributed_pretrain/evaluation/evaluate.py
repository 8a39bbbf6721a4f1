"""`evaluate`: what a run's encoder is worth, on a held-out split of any shards."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.files.atomic import remedy_of, try_to_write
from data_shards.profiles import parse_overrides, validate
from data_shards.records.study import Split, StudyRecord
from data_shards.starting import launcher_number
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.share import Share
from distributed_pretrain.evaluation.settings import EvaluateConfig, refuse_ranks
from distributed_pretrain.measures.base import Context, FeatureOutputs, Measure, make_measures
from distributed_pretrain.measures.catalog import EVALUATION, PICTURES
from distributed_pretrain.measures.metric import read_figures, write_figures
from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.pretrain.build import TrainedMethod, load_method
from distributed_pretrain.ranks import gather_rows, own_rows
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.device import best_device
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.gallery import Shown, write_page, write_pictures
from distributed_pretrain.training.settings import TrainingConfig

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
    if results.suffix != ".json":
        raise InputError(f"output={results}: figures are JSON: name a file that ends in .json")
    is_main = not launcher_number("RANK")
    try:
        if is_main:
            try_to_write(results)
    except OSError as error:
        raise InputError(
            f"{results}: cannot be written ({error.strerror}): {remedy_of(error)}, or pass "
            "output=FILE.json"
        ) from error
    read_figures(results)  # what else may be there stays
    found = evaluate_run(run_folder, config, more=PICTURES if config.pictures else ())
    if is_main:
        write_figures(found.metrics, results)
        if config.pictures:
            _show(run, results, found)
    return DONE


@torch.no_grad()
def _show(run: RunFolder, results: Path, found: Evaluation) -> None:
    """Write what the measures drew beside the figures, and for TensorBoard."""
    shown = [
        Shown(name, picture, measure.picture_notes.get(name, ""))
        for measure in found.measures
        for name, picture in measure.pictures().items()
    ]
    metrics = {metric.name: metric for each in found.measures for metric in each.metrics}
    write_pictures(run, results.with_suffix(""), shown)
    page = results.with_suffix(".html")
    lead = f"{run.path}: {found.samples} studies, {results.stem}."
    write_page(page, "What an encoder sees", lead, found.metrics, metrics, shown)
    print(f"pictures on {page}", file=sys.stderr)


def evaluate_run(
    run_folder: Path, config: EvaluateConfig, *, more: tuple[type[Measure], ...] = ()
) -> Evaluation:
    """Retrieval, grounding, linear segmentation and classification, where the shards allow it.

    `more` measures are taken besides. Ranks share the studies, and each has the figures of all.
    Raises InputError without run, checkpoint or samples, and PeerError when another rank fails.
    """
    with _share_of_ranks() as share:
        return _evaluate(run_folder, config, share, (*EVALUATION, *more))


@contextmanager
def _share_of_ranks() -> Iterator[Share]:
    """This process's part of the studies, and its device."""
    if (launcher_number("WORLD_SIZE") or 1) == 1:
        yield Share(device=best_device())
        return
    settings = TrainingConfig()
    engine = Engine(settings)
    liveness = Liveness(
        rank=engine.rank,
        world_size=engine.world_size,
        timeout_seconds=settings.rank_timeout_seconds,
    )
    with closing(engine), liveness:
        yield Share(engine.rank, engine.world_size, engine.device)


@torch.no_grad()
def _evaluate(
    run_folder: Path, config: EvaluateConfig, share: Share, kinds: tuple[type[Measure], ...]
) -> Evaluation:
    trained = load_method(run_folder, config.checkpoint)
    refuse_ranks(trained.config.data.global_batch, share.world_size)
    method = trained.method.to(share.device).eval()
    judged, labelled = (_loader(trained, config, each, share) for each in (config.split, "train"))
    context = _context(trained, config, share.device, judged.split, labelled.split)
    measures = make_measures(kinds, context)
    most = config.labelled_studies * config.labelled_subsets
    with closing(embed(method, labelled, most=most, features_only=True)) as batches:
        for batch, outputs in batches:
            for measure in measures:
                measure.learn(batch, outputs)
    samples = 0
    for batch, outputs in embed(method, judged):
        samples += int(gather_rows(batch.sample_mask).sum())
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
    """Each batch of a split, of up to `most` samples in all, with what the method makes of it.

    On several ranks these are this one's rows of them.
    """
    left = len(loader.split) if most is None else most
    for batch in loader.batches():
        rows = len(batch.keys)
        own = own_rows(rows)
        wanted = torch.arange(own.start, own.stop, device=batch.sample_mask.device) < left
        batch = replace(batch, sample_mask=batch.sample_mask & wanted, real=())
        yield batch, outputs_of(method, batch, features_only=features_only)
        left -= rows * loader.share.world_size
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
    trained: TrainedMethod, config: EvaluateConfig, split: Split, share: Share
) -> EvaluationLoader:
    data = trained.config.data
    shards = ShardSplit(data.files(config.shards), split, data.text_policy)
    # Embedding needs no labels, which other shards may not have, and no second view.
    views = "frontal" if data.views == "two_augmentations" else data.views
    data = data.model_copy(update={"labels": (), "views": views})
    return EvaluationLoader(shards, trained.tokenizer, data, share)


def _context(
    trained: TrainedMethod,
    config: EvaluateConfig,
    device: torch.device,
    judged: ShardSplit,
    labelled: ShardSplit,
) -> Context:
    members = {
        (split.split, split.key(position)): partial(split.read_member, position)
        for split in (judged, labelled)
        for position in range(len(split))
    }

    def read(record: StudyRecord, member: str) -> bytes:
        with _damage_is_input():
            return members[record.split, record.key](member)

    @cache
    def boxed_training() -> tuple[StudyRecord, ...]:
        with _damage_is_input():
            records = map(labelled.read, range(len(labelled)))
            return tuple(record for record in records if record.boxes)

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
        read=read,
        boxed_training=boxed_training,
        prompts=config.read_prompts(),
    )


@contextmanager
def _damage_is_input() -> Iterator[None]:
    try:
        yield
    except BadSampleError as error:
        raise InputError(
            f"{error}: run `python -m data_shards verify` and build the damaged shards again"
        ) from error
