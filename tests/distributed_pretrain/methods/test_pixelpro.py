"""PixPro: which cells of two views its loss compares, and over which images it is a mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from data_shards.profiles import load_profile
from distributed_pretrain.batch import Batch, SecondView
from distributed_pretrain.methods.encoders import ImageEncoderConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.pixelpro.method import Pixelpro
from distributed_pretrain.methods.pixelpro.settings import PixelproConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from tests.tiny.batches import as_double, random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_pixelpro", norm="group")


def tiny_pixelpro() -> Pixelpro:
    method = tiny_method(PROFILE).double()
    assert isinstance(method, Pixelpro)
    return method


def batch_with_views_apart(*apart: int, rows: int = 4) -> Batch:
    """A batch of which the views of the images `apart` show opposite corners."""
    batch = as_double(random_batch(PROFILE, rows))
    assert batch.second_view is not None
    maps = batch.second_view.view_to_image.clone()
    for image in apart:
        maps[image, 0] = torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]])
        maps[image, 1] = torch.tensor([[0.3, 0.0, 0.7], [0.0, 0.3, 0.7]])
    return replace(batch, second_view=replace(batch.second_view, view_to_image=maps))


def gradients_of(method: Method) -> dict[str, Tensor]:
    return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}


def test_the_defaults_are_those_of_the_comparison_and_of_the_paper() -> None:
    method = PixelproConfig(image_encoder=ImageEncoderConfig(weights=None)).build(
        Sizes(vocabulary=0)
    )
    count = sum(each.numel() for each in method.region_projection.parameters())
    assert count == (2048 + 1) * 2048 + 2 * 2048 + (2048 + 1) * 512
    config = method.config
    assert (config.propagation_sharpness, config.match_threshold) == (2, 0.7)
    assert config.teacher_momentum == 0.99


def test_the_profile_has_the_settings_of_the_comparison() -> None:
    profile = load_profile(PretrainConfig, PROFILES["pixelpro_a100"])
    optimizer, data = profile.optimizer, profile.data
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam", 1e-3, 1e-5)
    assert (data.global_batch, data.normalisation) == (64, "dataset")
    assert profile.schedule.name == "cosine"
    assert (profile.schedule.warmup_epochs, profile.training.epochs) == (0, 100)


def test_views_of_the_same_place_compare_each_cell_with_itself() -> None:
    method, batch = tiny_pixelpro(), as_double(random_batch(PROFILE, 3))
    identity = torch.eye(2, 3, dtype=torch.float64).expand(3, 2, 2, 3)
    outputs = method(replace(batch, second_view=SecondView(batch.images, identity)))
    regions = outputs.matches.shape[1]
    assert torch.equal(outputs.matches, torch.eye(regions).bool().expand(3, -1, -1))
    cosine = torch.cosine_similarity(outputs.first_propagated, outputs.first_target, dim=-1)
    torch.testing.assert_close(method.loss(outputs)["total"], -2 * cosine.mean())


def test_images_whose_views_do_not_meet_change_nothing() -> None:
    method, batch = tiny_pixelpro(), batch_with_views_apart(1, 3)
    loss = method.loss(method(batch))["total"]
    loss.backward()
    found = {name: each.clone() for name, each in gradients_of(method).items()}
    method.zero_grad()
    met = [batch.rows(slice(i, i + 1)) for i in (0, 2)]
    expected = torch.stack([method.loss(method(each))["total"] for each in met]).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, gradients_of(method))


def test_a_batch_without_any_match_gives_every_parameter_a_gradient_of_zero() -> None:
    method = tiny_pixelpro()
    loss = method.loss(method(batch_with_views_apart(0, 1, rows=2)))["total"]
    loss.backward()
    assert loss.item() == 0
    trained = {name for name, each in method.named_parameters() if each.requires_grad}
    gradients = gradients_of(method)
    assert gradients.keys() == trained
    assert not any(bool(each.any()) for each in gradients.values())


def test_micro_batches_with_other_numbers_of_matches_add_up_exactly() -> None:
    """A mean of the micro-batches' means would count the one image of the second twice."""
    batch = batch_with_views_apart(3)
    whole = tiny_pixelpro()
    expected = whole.loss(whole(batch))["total"]
    expected.backward()
    engine = Engine(TrainingConfig(accumulation_steps=2))
    method = tiny_pixelpro()
    engine.prepare(method, build_optimizer(OptimizerConfig(), method))
    step = accumulate_gradients(
        engine, batch.split([1, 1]), exact=True, seed=0, measure_norms=False
    )
    assert step.terms["total"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.cat(step.finite_rows).tolist() == [True] * 4
    torch.testing.assert_close(gradients_of(method), gradients_of(whole))


def test_the_teacher_of_encoder_and_projection_follows() -> None:
    method = tiny_pixelpro()
    pairs = [
        (method.image_encoder, method.encoder_teacher.network),
        (method.region_projection, method.projection_teacher.network),
    ]
    parameters = [
        both for pair in pairs for both in zip(*(m.parameters() for m in pair), strict=True)
    ]
    with torch.no_grad():
        for student, _ in parameters:
            student.add_(1)
    method.after_update(progress=0.0)
    moved = 1 - method.config.teacher_momentum
    for student, teacher in parameters:
        torch.testing.assert_close(teacher, student - 1 + moved)
