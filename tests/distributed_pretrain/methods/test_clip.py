from __future__ import annotations

import torch

from data_shards.profiles import load_profile
from distributed_pretrain.methods.global_contrast.method import GlobalContrast
from distributed_pretrain.methods.global_contrast.settings import ClipConfig
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.models.norms.rows import MaskedBatchNorm
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile
from tests.tiny.sizes import HEADS

BATCH = random_batch(tiny_profile("phantom_clip"), 5)


def tiny_clip() -> GlobalContrast:
    method = tiny_method(tiny_profile("phantom_clip"))
    assert isinstance(method, GlobalContrast)
    return method


def test_the_image_is_pooled_by_attention() -> None:
    method = tiny_clip().eval()
    images = method(BATCH).images
    last_map = method.feature_map(BATCH.images)
    assert method.image_head.pooling is not None
    pooled, weights = method.image_head.pooling(last_map.flatten(2).mT)
    torch.testing.assert_close(images.image, method.image_head.projection(pooled))
    assert images.region_weights is not None
    torch.testing.assert_close(images.region_weights.flatten(1), weights)


def test_phrases_are_compared_with_regions_as_reports_with_images() -> None:
    """In an image with one region the two are the same."""
    method = tiny_clip().eval()
    last_map = method.feature_map(BATCH.images)[:, :, :1, :1]
    image, _ = method.image_head(last_map)
    torch.testing.assert_close(method.image_head.embed_regions(last_map)[:, 0, 0], image)
    images = method.embed_images(BATCH)
    assert images.regions.shape == (5, 4, 4, HEADS["embedding_dim"])
    assert method.grounding_map(method.embed_reports(BATCH.report), images).shape == (5, 4, 4)


def test_the_norms_learn_from_images_not_from_regions() -> None:
    method = tiny_clip().train()
    outputs = method(BATCH)
    norm = method.image_head.projection.norm
    assert isinstance(norm, MaskedBatchNorm)
    assert norm.num_batches_tracked.item() == 1
    # Grounding alone reads regions; their grid stays, for pictures of the attention.
    assert outputs.images.regions.shape == (5, 4, 4, 0)


def test_the_defaults_are_those_of_lovt() -> None:
    clip, lovt = ClipConfig(), LovtConfig()
    shared = clip.model_dump().keys() & lovt.model_dump().keys() - {"name"}
    assert {"image_encoder", "report_encoder", "embedding_dim", "pooling_heads"} <= shared
    assert {key: getattr(clip, key) for key in shared} == {
        key: getattr(lovt, key) for key in shared
    }
    assert clip.temperature == lovt.global_temperature


def test_the_profile_trains_as_lovt_on_one_sentence_a_report() -> None:
    clip, lovt = (
        load_profile(PretrainConfig, PROFILES[name]) for name in ("clip_a100", "lovt_a100")
    )
    assert clip.data == lovt.data.model_copy(update={"sentences": "one"})
    assert clip.optimizer == lovt.optimizer
    assert clip.schedule == lovt.schedule
    assert clip.training == lovt.training


def test_thirty_per_cent_of_the_patients_change_nothing_else() -> None:
    whole, part = (
        load_profile(PretrainConfig, PROFILES[name]) for name in ("clip_a100", "clip_a100_30")
    )
    changed = {"run_folder": part.run_folder, "data": part.data}
    assert part == whole.model_copy(update=changed)
    assert part.data == whole.data.model_copy(update={"patient_fraction": 0.3})
