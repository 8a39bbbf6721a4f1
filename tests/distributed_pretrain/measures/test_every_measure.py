"""What every measure must do: a new line in the catalogue is tested by being there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.evaluation.evaluate import outputs_of
from distributed_pretrain.measures.attention_weights import AttentionWeights
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.catalog import EVALUATION, PICTURES, VALIDATION
from distributed_pretrain.measures.linear import LinearMeasure
from distributed_pretrain.measures.nearest_regions import NearestRegions
from distributed_pretrain.measures.prompts import ClassPrompts
from distributed_pretrain.measures.region_similarity import RegionSimilarity
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from tests.tiny.methods import PROFILES, tiny_profile

KINDS = [
    *((kind, False) for kind in VALIDATION),
    *((kind, True) for kind in EVALUATION),
    *((kind, True) for kind in PICTURES if kind not in VALIDATION),
]
OF_FEATURES = (LinearMeasure, NearestRegions, RegionSimilarity)
LABELS = ("Cardiomegaly", "Pleural Effusion", "Pneumothorax")
STUDIES = 12


@dataclass(frozen=True)
class Judged:
    """A small method, the studies it is judged by, and what measures may ask for."""

    method: Method
    batch: Batch
    context: Context

    def measured(self, kind: type[Measure], *, in_evaluation: bool, padding: int = 0) -> Measure:
        """The measure after it has seen the studies, behind `padding` rows that are not real."""
        measure = kind(replace(self.context, thorough=in_evaluation))
        batch = self.batch
        if padding:
            mask = torch.tensor([False] * padding + [True] * len(batch.keys))
            joined = join_rows([batch.rows(slice(0, padding)), batch])
            batch = replace(joined, sample_mask=mask)
        outputs: Any = outputs_of(self.method, batch) if in_evaluation else self.method(batch)
        measure.learn(batch, outputs)
        measure.update(batch, outputs)
        return measure


@pytest.fixture(scope="module")
def judge(phantom_shards: Path, small_tokenizer: SentenceTokenizer) -> Callable[[str], Judged]:
    split = ShardSplit(phantom_shards, "train", "lovt")

    @cache
    def judged(profile: str) -> Judged:
        config = tiny_profile(profile)
        data = config.data.model_copy(
            update={
                "global_batch": STUDIES,
                "image_size_px": 64,
                "labels": LABELS if config.data.labels else (),
            }
        )
        torch.manual_seed(0)
        method = config.method.build(
            Sizes(small_tokenizer.vocabulary_size, classes=len(data.labels))
        ).eval()
        loader = EvaluationLoader(split, small_tokenizer, data)
        positions = {split.key(position): position for position in range(len(split))}
        context = Context(
            objective=method,
            device=torch.device("cpu"),
            labels=data.labels,
            prompts={name: ClassPrompts(present=(f"{name}.",)) for name in LABELS},
            encode=small_tokenizer.encode,
            read=lambda record, member: split.read_member(positions[record.key], member),
        )
        return Judged(method, next(loader.batches()), context)

    return judged


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "in_evaluation"), KINDS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_measure_names_its_numbers_and_counts_real_samples_only(
    kind: type[Measure], in_evaluation: bool, judge: Callable[[str], Judged]
) -> None:
    methods = 0
    for profile in PROFILES:
        if not profile.startswith("phantom_") or profile.endswith(("_untrained", "_regions")):
            continue
        if methods and issubclass(kind, OF_FEATURES):
            break  # reads the feature map alone, which all have
        judged = judge(profile)
        if not kind.applies(judged.method):
            continue
        methods += 1
        measure = judged.measured(kind, in_evaluation=in_evaluation)
        found, pictures = measure.compute(), measure.pictures()
        if kind is AttentionWeights and not pictures:
            continue  # of a method that weighs neither regions nor words
        assert found or pictures
        assert pictures.keys() <= kind.picture_notes.keys()
        named = [metric.name for metric in measure.metrics]
        assert len(named) == len(set(named))
        assert found.keys() <= set(named)
        assert all(math.isfinite(value) for value in found.values())
        assert all(metric.title for metric in measure.metrics)
        for picture in pictures.values():
            assert picture.dtype == np.uint8
            assert (picture.ndim, picture.shape[-1]) == (3, 3)
        padded = judged.measured(kind, in_evaluation=in_evaluation, padding=3)
        assert padded.compute() == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert methods, f"no method has what {kind.__name__} reads"


def test_no_two_measures_share_a_name(judge: Callable[[str], Judged]) -> None:
    for kinds in (VALIDATION, EVALUATION):
        for profile in ("phantom_lovt", "phantom_chexpert"):
            context = judge(profile).context
            measures = [kind(context) for kind in kinds if kind.applies(context.objective)]
            names = [metric.name for measure in measures for metric in measure.metrics]
            assert len(names) == len(set(names))
