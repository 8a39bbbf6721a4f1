"""SimCLR: the sizes of LoVT's comparison, and what its loss compares."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from data_shards.profiles import load_profile
from distributed_pretrain.losses.self_supervised import nt_xent_loss
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.catalog import VALIDATION
from distributed_pretrain.methods.encoders import ImageEncoderConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.methods.simclr.settings import SimclrConfig
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.validation import Validation
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_simclr", norm="group")


def test_the_defaults_are_those_of_the_comparison() -> None:
    method = SimclrConfig(image_encoder=ImageEncoderConfig(weights=None)).build(Sizes(vocabulary=0))
    sizes = [each.numel() for each in method.projection.parameters()]
    assert sizes == [2048 * 2048, 2048, 2048 * 128, 128]
    assert method.config.temperature == 0.1


def test_the_profile_has_the_settings_of_the_comparison() -> None:
    profile = load_profile(PretrainConfig, PROFILES["simclr_a100"])
    optimizer, data = profile.optimizer, profile.data
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam", 3e-4, 1e-4)
    assert (data.global_batch, data.normalisation) == (128, "dataset")
    assert profile.schedule.name == "cosine"
    assert (profile.schedule.warmup_epochs, profile.training.epochs) == (1, 100)


def test_each_view_is_compared_with_all_others() -> None:
    method, batch = tiny_method(PROFILE), random_batch(PROFILE, 4)
    outputs = method(batch)
    loss = method.loss(outputs)
    assert loss.keys() == {"total", "nt_xent"}
    expected = nt_xent_loss(outputs.first, outputs.second, temperature=0.1)
    torch.testing.assert_close(loss["total"], expected)


def test_the_views_may_change_places() -> None:
    method, batch = tiny_method(PROFILE), random_batch(PROFILE, 4)
    assert batch.second_view is not None
    second = batch.second_view
    swapped = replace(batch, images=second.images, second_view=replace(second, images=batch.images))
    ours, expected = (method.loss(method(each))["total"] for each in (swapped, batch))
    torch.testing.assert_close(ours, expected)


def test_batch_norms_see_both_views_together() -> None:
    """Of one view alone the statistics would be others: the loss would know which is which."""
    method = tiny_method(tiny_profile("phantom_simclr", norm="sync")).train()
    batch = random_batch(PROFILE, 4)
    assert batch.second_view is not None
    other, same = (replace(batch.second_view, images=batch.images + by) for by in (3, 0))
    outputs, alone = (method(replace(batch, second_view=each)) for each in (other, same))
    assert not torch.allclose(outputs.first, alone.first)


def test_the_same_image_over_and_over_gives_the_logarithm_of_the_others() -> None:
    method, batch = tiny_method(PROFILE), random_batch(PROFILE, 5)
    same = batch.images[:1].expand_as(batch.images)
    assert batch.second_view is not None
    twice = replace(batch, images=same, second_view=replace(batch.second_view, images=same))
    loss = method.loss(method(twice))
    assert loss["total"].item() == pytest.approx(math.log(9), rel=1e-5)


def test_it_has_no_auroc_to_watch_even_where_there_are_labels() -> None:
    context = Context(objective=tiny_method(PROFILE), device=torch.device("cpu"), labels=("Edema",))
    assert set(Validation(list, context, VALIDATION).metrics) == {"total", "nt_xent"}
