"""What a method makes of a split, batch by batch: what the measures of an evaluation read."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.measures.base import FeatureOutputs
from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
from distributed_pretrain.methods.objective import Method


@dataclass(frozen=True, kw_only=True)
class ImageTextFeatureOutputs(FeatureOutputs, ImageTextOutputs):
    """Embeddings of images and reports beside the feature map."""


@torch.no_grad()
def embed(
    method: Method,
    loader: EvaluationLoader,
    *,
    most: int | None = None,
    features_only: bool = False,
) -> Generator[tuple[Batch, FeatureOutputs]]:
    """Each batch of a split with what the method makes of it, up to `most` samples.

    `features_only` leaves the embeddings out.
    """
    left = len(loader.split) if most is None else most
    for each in loader.batches():
        rows = len(each.keys)
        wanted = torch.arange(rows, device=each.sample_mask.device) < left
        batch = replace(each, sample_mask=each.sample_mask & wanted)
        yield batch, outputs_of(method, batch, features_only=features_only)
        left -= rows
        if left <= 0:
            return


def outputs_of(method: Method, batch: Batch, *, features_only: bool = False) -> FeatureOutputs:
    """What an evaluation reads of one batch."""
    feature_map = method.feature_map(batch.images)
    if features_only or not isinstance(method, ImageTextMethod):
        return FeatureOutputs(sample_mask=batch.sample_mask, feature_map=feature_map)
    return ImageTextFeatureOutputs(
        sample_mask=batch.sample_mask,
        feature_map=feature_map,
        images=method.embed_images(batch),
        reports=method.embed_reports(batch.report),
    )
