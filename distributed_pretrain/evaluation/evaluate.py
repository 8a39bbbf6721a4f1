"""`evaluate`: what a run's encoder is worth, on a held-out split of any shards."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from data_shards.errors import InputError
from data_shards.profiles import parse_overrides, validate
from data_shards.records.manifest import write_text_atomically
from data_shards.records.study import Split, StudyRecord
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.report_tokenizer import ReportTokenizer
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.evaluation.embedded import (
    EmbeddedStudies,
    Grounding,
    ReadMember,
    class_masks,
    embed_studies,
    ground_phrases,
    mask_classes,
    study_similarity,
)
from distributed_pretrain.measures.classification import (
    ClassificationSet,
    auroc_metrics,
    label_matrix,
    linear_auroc,
)
from distributed_pretrain.measures.linear_segmentation import SegmentationSet, linear_dice
from distributed_pretrain.measures.retrieval import retrieval_in_chunks, retrieval_metrics
from distributed_pretrain.methods.catalog import build_method
from distributed_pretrain.methods.objective import JointSpace, Method
from distributed_pretrain.pretrain.build import load_tokenizer
from distributed_pretrain.pretrain.settings import EvaluateConfig, PretrainConfig
from distributed_pretrain.run_folder.checkpoint import load_weights
from distributed_pretrain.run_folder.folder import RunFolder


@dataclass(frozen=True)
class Evaluation:
    """Figures (fractions) with what pictures are made of; `similarity` of images to reports."""

    metrics: dict[str, float]
    studies: EmbeddedStudies
    similarity: Float[Tensor, "samples samples"] | None
    grounding: Grounding | None


def run_evaluate(run_folder: Path, overrides: Sequence[str]) -> int:
    """Print the figures of a run and write them to its `evaluation_<split>_<checkpoint>.json`."""
    config = validate(EvaluateConfig, parse_overrides(overrides), where="evaluate")
    evaluation = evaluate_run(run_folder, config)
    path = run_folder / config.file_name
    write_text_atomically(path, json.dumps(evaluation.metrics, indent=1))
    width = max(map(len, evaluation.metrics))
    for name, value in evaluation.metrics.items():
        print(f"{name:{width}s} {value:8.4f}")
    print(f"written to {path}", file=sys.stderr)
    return 0


def evaluate_run(run_folder: Path, config: EvaluateConfig) -> Evaluation:
    """Retrieval, grounding, linear segmentation and classification, where the shards allow it.

    `untrained` is the same encoder as the run began with. Raises InputError for a folder
    without run, checkpoint or samples.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("evaluate runs in one process: start it without accelerate launch")
    run = RunFolder(run_folder).read_config()
    tokenizer = load_tokenizer(run, run_folder / "tokenizer")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(run.seed)
    method = build_method(
        run.method, vocabulary_size=tokenizer.vocabulary_size, classes=len(run.data.labels)
    )
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
    tokenizer: ReportTokenizer
    method: Method
    device: torch.device

    def evaluate(self) -> Evaluation:
        test_split = self._split(self.config.split)
        studies = self._embed(test_split, len(test_split), joint=True)
        metrics = {"samples": float(len(studies.records))}
        similarity = None
        if studies.joint is not None and isinstance(self.method, JointSpace):
            similarity = study_similarity(self.method, studies.joint, self.device)
            metrics |= _retrieval(similarity, studies)
        grounding = ground_phrases(self.method, studies, self.tokenizer.encode, self.device)
        if grounding is not None:
            metrics["grounding_phrases"] = float(len(grounding.phrases))
            metrics["grounding_cnr"] = grounding.contrast.mean().item()
            metrics["grounding_pointing"] = grounding.hits.double().mean().item()
        training_split = self._split("train")
        wanted = self.config.labelled_studies * self.config.labelled_subsets
        labelled = self._embed(training_split, wanted, joint=False)
        subsets = _subsets(len(labelled.records), self.config.labelled_studies)
        metrics |= self._linear_classification(labelled, subsets, studies)
        metrics |= self._linear_segmentation(training_split, labelled, subsets, test_split, studies)
        return Evaluation(metrics, studies, similarity, grounding)

    def _linear_classification(
        self, labelled: EmbeddedStudies, subsets: Sequence[slice], studies: EmbeddedStudies
    ) -> dict[str, float]:
        """The AUROC of a linear head on the mean of the feature map, for every wanted label."""
        known = sorted({name for record in labelled.records for name in record.labels})
        if unknown := [name for name in self.config.labels if name not in known]:
            raise InputError(
                f"evaluate: labels: {unknown[0]!r} is no label of the {len(labelled.records)} "
                f"labelled studies: choose among {', '.join(known)}"
            )
        classes = self.config.labels or known
        if not classes:
            return {}
        training, test = (
            ClassificationSet(each.features.mean(dim=(2, 3)), label_matrix(each.records, classes))
            for each in (labelled, studies)
        )
        area = _mean(
            linear_auroc(ClassificationSet(training.features[rows], training.labels[rows]), test)
            for rows in subsets
        )
        areas = auroc_metrics(area, classes)
        return {f"linear_{name}": value for name, value in areas.items()}

    def _linear_segmentation(
        self,
        training_split: ShardSplit,
        labelled: EmbeddedStudies,
        subsets: Sequence[slice],
        test_split: ShardSplit,
        studies: EmbeddedStudies,
    ) -> dict[str, float]:
        classes = mask_classes(labelled)
        if not classes or not mask_classes(studies):
            return {}
        masks = class_masks(labelled, classes, _reader(training_split))
        test = SegmentationSet(studies.features, class_masks(studies, classes, _reader(test_split)))
        dice = _mean(
            linear_dice(
                SegmentationSet(labelled.features[rows], masks[rows]), test, seed=self.run.seed
            )
            for rows in subsets
        ).tolist()
        by_class = {
            f"linear_dice_{name.lower().replace(' ', '_')}": value
            for name, value in zip(classes, dice, strict=True)
        }
        return {"linear_dice": sum(dice) / len(dice), **by_class}

    def _split(self, split: Split) -> ShardSplit:
        folder = self.config.shards or self.run.data.shards
        return ShardSplit.open(folder, split, self.run.data.text_policy)

    def _embed(self, split: ShardSplit, limit: int, *, joint: bool) -> EmbeddedStudies:
        # Embedding needs no labels, which other shards may not have, and no second view.
        data = self.run.data.model_copy(update={"labels": ()})
        if data.views == "two_augmentations":
            data = data.model_copy(update={"views": "frontal"})
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
            joint=joint,
            crop_fraction=data.augmentation.evaluation_crop_fraction,
        )


def _retrieval(similarity: Tensor, studies: EmbeddedStudies) -> dict[str, float]:
    """Recalls with identical reports as one (plain names), each for itself, and in chunks."""
    groups = ["\n".join(report) for report in studies.reports]
    apart = {f"ungrouped_{name}": value for name, value in retrieval_metrics(similarity).items()}
    chunks = {f"chunks_{name}": value for name, value in retrieval_in_chunks(similarity).items()}
    return retrieval_metrics(similarity, groups=groups) | apart | chunks


def _subsets(studies: int, size: int) -> list[slice]:
    """Whole sets of `size`; a single smaller one where there are fewer studies."""
    return [slice(start, start + size) for start in range(0, max(studies - size, 0) + 1, size)]


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(dim=0)


def _reader(split: ShardSplit) -> ReadMember:
    positions = {split.key(position): position for position in range(len(split))}

    def read(record: StudyRecord, member: str) -> bytes:
        return split.read_member(positions[record.key], member)

    return read
