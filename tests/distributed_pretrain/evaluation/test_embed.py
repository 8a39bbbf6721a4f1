"""What evaluation hands to its measures, from shards through a method."""

from __future__ import annotations

from pathlib import Path

import torch

from distributed_pretrain.data.loader import EvaluationLoader
from distributed_pretrain.data.tokenization import SentenceTokenizer
from distributed_pretrain.evaluation.evaluate import ImageTextFeatureOutputs, embed
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from tests.distributed_pretrain.phantom_batches import STUDIES, configured, opened
from tests.tiny.methods import tiny_profile


def method_and_loader(
    name: str, shards: Path, tokenizer: SentenceTokenizer
) -> tuple[Method, EvaluationLoader]:
    config = tiny_profile(name)
    method = config.method.build(Sizes(tokenizer.vocabulary_size, len(config.data.labels))).eval()
    data = configured(shards, global_batch=9, views=config.data.views, labels=config.data.labels)
    return method, EvaluationLoader(opened(data), tokenizer, data)


def test_a_method_embeds_studies_by_both_views(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    method, loader = method_and_loader("phantom_limitr", phantom_shards, small_tokenizer)
    laterals: list[bool] = []
    for batch, outputs in embed(method, loader):
        assert isinstance(outputs, ImageTextFeatureOutputs)
        assert outputs.images.lateral_mask is not None
        laterals += outputs.images.lateral_mask.tolist()
        torch.testing.assert_close(outputs.feature_map, method.feature_map(batch.images))
    split = loader.split
    stored = [bool(split.read(i).lateral_images()) for i in range(len(split))]
    assert laterals == stored
    assert 0 < sum(stored) < STUDIES


def test_every_study_comes_once_or_the_first_of_them(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    method, loader = method_and_loader("phantom_clip", phantom_shards, small_tokenizer)

    def keys(most: int | None) -> list[str]:
        return [
            key
            for batch, outputs in embed(method, loader, most=most)
            for key, real in zip(batch.keys, outputs.sample_mask.tolist(), strict=True)
            if real
        ]

    assert len(keys(None)) == STUDIES
    assert keys(11) == keys(None)[:11]
    assert keys(STUDIES + 1) == keys(None)


def test_whoever_learns_from_features_gets_no_embeddings(
    phantom_shards: Path, small_tokenizer: SentenceTokenizer
) -> None:
    method, loader = method_and_loader("phantom_clip", phantom_shards, small_tokenizer)
    for (_, plain), (_, whole) in zip(
        embed(method, loader, features_only=True), embed(method, loader), strict=True
    ):
        assert not isinstance(plain, ImageTextFeatureOutputs)
        assert torch.equal(plain.feature_map, whole.feature_map)
        assert not plain.feature_map.requires_grad
