"""The plane keeps groups apart, the same for a seed, and shows the labels that tell most."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from distributed_pretrain.measures.base import Context, FeatureOutputs
from distributed_pretrain.measures.embedding_map import FEWEST, EmbeddingMap, on_a_plane
from tests.distributed_pretrain.measures.test_grounding import BrightnessMethod, _study
from tests.tiny.batches import batch_of

STUDIES = 24


def measured(studies: int, *, broken: bool = False) -> EmbeddingMap:
    measure = EmbeddingMap(Context(objective=BrightnessMethod(), device=torch.device("cpu")))
    labels: list[dict[str, float | None]] = [
        {"even": float(number % 2), "always": 1.0, "once": float(number == 0)}
        for number in range(studies)
    ]
    records = tuple(replace(_study("study", ()), labels=each) for each in labels)
    batch = replace(batch_of([[[1]]] * studies), records=records)
    maps = torch.randn(studies, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    if broken:
        maps[0] = torch.nan
    measure.update(batch, FeatureOutputs(sample_mask=batch.sample_mask, feature_map=maps))
    return measure


def test_two_groups_stay_apart_and_a_seed_decides() -> None:
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(2, 8), STUDIES // 2, axis=0)
    vectors = centres + random.normal(0, 0.05, (STUDIES, 8))
    points = on_a_plane(vectors, seed=1)
    groups = points.reshape(2, STUDIES // 2, 2)
    between = np.linalg.norm(groups[0].mean(axis=0) - groups[1].mean(axis=0))
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    assert between > within
    assert (on_a_plane(vectors, seed=1) == points).all()


def test_labels_that_all_answer_alike_are_left_out() -> None:
    """Two panels, of the label that splits most evenly and of the other."""
    (picture,) = measured(STUDIES).pictures().values()
    (one_panel,) = measured(1 + FEWEST).pictures().values()
    assert picture.shape == one_panel.shape
    assert picture.shape[1] > 1.5 * picture.shape[0]


def test_few_studies_and_broken_embeddings_give_no_picture() -> None:
    assert measured(FEWEST - 1).pictures() == {}
    assert measured(STUDIES, broken=True).pictures() == {}
