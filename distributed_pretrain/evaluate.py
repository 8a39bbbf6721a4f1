"""`evaluate`: what a run's encoder is worth, on a held-out split of any shards."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import Field, PositiveInt

from data_shards.profiles import Config, parse_overrides, validate
from data_shards.records.errors import InputError
from data_shards.records.manifest import write_text_atomically
from data_shards.records.study import Split, StudyRecord
from distributed_pretrain.batch import Batch
from distributed_pretrain.checkpoint import load_weights
from distributed_pretrain.config import PretrainConfig
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.evaluation.linear_segmentation import SegmentationSet, linear_dice
from distributed_pretrain.evaluation.retrieval import retrieval_metrics
from distributed_pretrain.evaluation.studies import (
    EmbeddedStudies,
    Grounding,
    ReadMember,
    class_masks,
    embed_studies,
    ground_phrases,
    mask_classes,
)
from distributed_pretrain.methods.base import Method
from distributed_pretrain.methods.catalog import build_method
from distributed_pretrain.training.run_folder import RunFolder


class EvaluateConfig(Config):
    """What `evaluate RUN_FOLDER key=value ...` can be told."""

    checkpoint: str = Field("best", description="best, last, a step folder's name, or untrained")
    split: Split = "test"
    shards: Path | None = Field(None, description="null: those the run was trained on")
    labelled_studies: PositiveInt = Field(
        600, description="training studies whose masks the linear segmentation may use"
    )


@dataclass(frozen=True)
class Evaluation:
    """Figures (fractions) with what pictures are made of."""

    metrics: dict[str, float]
    studies: EmbeddedStudies
    grounding: Grounding | None


def run_evaluate(run_folder: Path, overrides: Sequence[str]) -> int:
    """Print the figures of a run and write them to its `evaluation_<split>_<checkpoint>.json`."""
    config = validate(EvaluateConfig, parse_overrides(overrides), where="evaluate")
    evaluation = evaluate_run(run_folder, config)
    path = run_folder / f"evaluation_{config.split}_{config.checkpoint}.json"
    write_text_atomically(path, json.dumps(evaluation.metrics, indent=1))
    for name, value in evaluation.metrics.items():
        print(f"{name:34s} {value:8.4f}")
    print(f"written to {path}", file=sys.stderr)
    return 0


def evaluate_run(run_folder: Path, config: EvaluateConfig) -> Evaluation:
    """Retrieval, phrase grounding and linear segmentation, each where the shards allow it.

    `untrained` is the same encoder as the run began with. Raises InputError for a folder
    without run, checkpoint or samples.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("evaluate runs in one process: start it without accelerate launch")
    run = RunFolder(run_folder).read_config()
    tokenizer = SentenceTokenizer.load(run_folder / "tokenizer", max_tokens=run.data.max_tokens)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(run.seed)
    method = build_method(run.method, vocabulary_size=tokenizer.vocabulary_size)
    if config.checkpoint != "untrained":
        folder = run_folder / "checkpoints" / config.checkpoint
        if not folder.is_dir():
            raise InputError(f"{folder}: no such checkpoint: use best, last or a step folder")
        method.load_state_dict(load_weights(folder))
    method.to(device).eval()
    return _Evaluator(run, config, tokenizer, method, device).evaluate()


@dataclass(frozen=True)
class _Evaluator:
    run: PretrainConfig
    config: EvaluateConfig
    tokenizer: SentenceTokenizer
    method: Method
    device: torch.device

    def evaluate(self) -> Evaluation:
        test_split = self._split(self.config.split)
        studies = self._embed(test_split, len(test_split))
        groups = ["\n".join(report) for report in studies.reports]
        metrics = {"samples": float(len(studies.records))}
        metrics |= retrieval_metrics(studies.image, studies.report, groups=groups)
        grounding = ground_phrases(self.method, studies, self.tokenizer.encode, self.device)
        if grounding is not None:
            metrics["grounding_phrases"] = float(len(grounding.phrases))
            metrics["grounding_cnr"] = grounding.contrast.mean().item()
            metrics["grounding_pointing"] = grounding.hits.double().mean().item()
        metrics |= self._linear_segmentation(test_split, studies)
        return Evaluation(metrics, studies, grounding)

    def _linear_segmentation(
        self, test_split: ShardSplit, studies: EmbeddedStudies
    ) -> dict[str, float]:
        if not mask_classes(studies):
            return {}
        training_split = self._split("train")
        labelled = self._embed(training_split, self.config.labelled_studies)
        classes = mask_classes(labelled)
        if not classes:
            return {}
        dice = linear_dice(
            SegmentationSet(
                labelled.features, class_masks(labelled, classes, _reader(training_split))
            ),
            SegmentationSet(studies.features, class_masks(studies, classes, _reader(test_split))),
            seed=self.run.seed,
        ).tolist()
        by_class = {
            f"linear_dice_{name.lower().replace(' ', '_')}": value
            for name, value in zip(classes, dice, strict=True)
        }
        return {"linear_dice": sum(dice) / len(dice), **by_class}

    def _split(self, split: Split) -> ShardSplit:
        folder = self.config.shards or self.run.data.shards
        return ShardSplit.open(folder, split, self.run.data.text_policy)

    def _embed(self, split: ShardSplit, limit: int) -> EmbeddedStudies:
        # Embedding needs no labels, which other shards may not have, and no second augmentation.
        data = self.run.data
        views = "frontal" if data.views == "two_augmentations" else data.views
        data = data.model_copy(update={"labels": (), "views": views})
        loader = EvaluationLoader(split, self.tokenizer, data)
        transform = DeviceTransform.of(data, split.manifest)

        def batches() -> Iterator[tuple[HostBatch, Batch]]:
            seen = 0
            for host in loader.batches():
                if seen >= limit:
                    return
                batch = transform(host, self.device, train=False)
                wanted = torch.arange(len(host.keys), device=self.device) < limit - seen
                seen += len(host.keys)
                yield host, replace(batch, sample_mask=batch.sample_mask & wanted)

        return embed_studies(
            self.method,
            batches(),
            data.text_policy,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
        )


def _reader(split: ShardSplit) -> ReadMember:
    positions = {split.key(position): position for position in range(len(split))}

    def read(record: StudyRecord, member: str) -> bytes:
        return split.read_member(positions[record.key], member)

    return read
