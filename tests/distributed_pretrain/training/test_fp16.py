"""fp16: gradients are those of float32, and a step that leaves its range changes nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_shards.files.json_lines import JsonLines
from distributed_pretrain.batch import Batch
from distributed_pretrain.run_folder.checkpoint import load_checkpoint
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.engine.layout import MOMENTS
from distributed_pretrain.training.engine.loss_scale import (
    FIRST,
    GROWS_AFTER_UPDATES,
    LARGEST,
    LEAST,
    LossScale,
)
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import OptimizerConfig, TrainingConfig
from distributed_pretrain.training.step import Stepper
from tests.tiny import short_run as short
from tests.tiny.batches import pairs_of_sentences, random_batch
from tests.tiny.methods import tiny_lovt, tiny_method, tiny_profile
from tests.tiny.sizes import IMAGE_ENCODER

FP16: Any = {"precision": "fp16"}
CPU = torch.device("cpu")
SKIP, MADE = torch.tensor(True), torch.tensor(False)


def test_the_scale_halves_with_a_skip_and_doubles_after_many_updates() -> None:
    scale = LossScale(CPU)
    scale.update(SKIP)
    assert scale.numbers().tolist() == [FIRST / 2, 0]
    scale.set(FIRST, GROWS_AFTER_UPDATES - 2)
    scale.update(MADE)
    assert scale.numbers().tolist() == [FIRST, GROWS_AFTER_UPDATES - 1]
    scale.update(MADE)
    assert scale.numbers().tolist() == [2 * FIRST, 0]
    scale.update(MADE)
    scale.update(SKIP)
    assert scale.numbers().tolist() == [FIRST, 0]
    for factor, skip, expected in ((LEAST, SKIP, LEAST), (LARGEST, MADE, LARGEST)):
        scale.set(factor, GROWS_AFTER_UPDATES)
        scale.update(skip)
        assert scale.numbers()[0] == expected


def gradients(
    training: TrainingConfig, *, pieces: int, factor: float = FIRST
) -> tuple[dict[str, Tensor], Tensor]:
    """By term the norm, and all gradients, of losses so small that fp16 alone would lose them."""
    norms = {"image_encoder": IMAGE_ENCODER | {"norm": "group"}, "projection_norm": "group"}
    method = tiny_lovt(**norms, global_weight=1e-6, local_image_weight=1e-6, local_report_weight=0)
    engine = Engine(training)
    engine.prepare(method.train(), build_optimizer(OptimizerConfig(), method))
    if engine.loss_scale is not None:
        engine.loss_scale.set(factor, 0)
    batch = pairs_of_sentences(1, 2, 3, 1, 2, 1)
    found = accumulate_gradients(
        engine, batch.split([1] * pieces), exact=True, seed=0, measure_norms=True
    )
    engine.gradient_norm()
    flat = torch.cat([p.grad.flatten() for p in engine.parameters if p.grad is not None])
    return found.norms, flat


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "cached"])
def test_gradients_below_the_range_are_those_of_float32(pieces: int) -> None:
    norms, wanted = gradients(TrainingConfig(), pieces=pieces)
    norms_in_fp16, found = gradients(TrainingConfig(**FP16), pieces=pieces)
    assert found.dtype == torch.float32
    # The forward's own roundings; of bf16's it would be 0.41.
    assert error(found, wanted) < 0.15
    _, unscaled = gradients(TrainingConfig(**FP16), pieces=pieces, factor=1.0)
    assert error(unscaled, wanted) > 0.9
    for name in ("global", "local_image"):
        norm = norms[name]
        assert float(norms_in_fp16[name]) == pytest.approx(float(norm), rel=2e-2)


def test_a_step_that_leaves_the_range_is_logged_and_counts_for_nothing(tmp_path: Path) -> None:
    config = tiny_profile("phantom_lovt")
    training = config.training.model_copy(update={**FP16, "gradient_norms_every_steps": None})
    config = config.model_copy(update={"training": training})
    method = tiny_method(config).train()
    engine = Engine(training)
    engine.prepare(method, build_optimizer(config.optimizer, method))
    skipped = JsonLines(tmp_path / "skipped.jsonl")
    stepper, state = Stepper(config, engine, skipped, 10, 10), TrainingState()
    assert engine.loss_scale is not None

    def step(batch: Batch) -> dict[str, float]:
        launched = stepper.step(state, batch, data_wait_seconds=0.0, interrupted=lambda: False)
        return stepper.read(state, launched).values

    def everything() -> list[Tensor]:
        moments = [m[name] for m in engine.optimizer.state.values() for name in (*MOMENTS, "step")]
        return [each.detach().clone() for each in (*method.state_dict().values(), *moments)]

    engine.loss_scale.set(128, 0)
    good = random_batch(config, 6)
    assert step(good)["gradient_norm"] > 0
    before = everything()
    engine.loss_scale.set(2.0**40, 7)
    values = step(good)
    assert all(map(torch.equal, everything(), before))
    assert "gradient_norm" not in values
    assert math.isfinite(values["total"])
    assert (values["loss_scale"], values["overflowed_steps"], values["skipped_steps"]) == (
        2.0**40,
        1,
        0,
    )
    assert (state.consecutive_skips, skipped.read()) == (0, [])
    assert (state.loss_scale, state.loss_scale_updates) == (LARGEST, 0)
    # A loss that is not finite is no matter of the scale.
    engine.loss_scale.set(128, 0)
    images = good.images.clone()
    images[1] = torch.nan
    step(replace(good, images=images))
    assert (state.skipped_steps, state.consecutive_skips, state.overflowed_steps) == (1, 1, 1)
    assert all(map(torch.equal, everything(), before))
    # Nor are gradients that no smaller scale would keep in range.
    engine.loss_scale.set(LEAST, 0)
    for parameter in engine.parameters:
        parameter.register_hook(lambda gradient: gradient * torch.inf)
    step(good)
    assert (state.skipped_steps, state.overflowed_steps) == (2, 1)


def test_the_scale_is_saved_and_gone_on_with(tiny_profile: Path, tmp_path: Path) -> None:
    words = ("training.precision=fp16",)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    assert short.train(tiny_profile, whole, *words) == 0
    short.cut_back(whole, begun)
    saved = load_checkpoint(begun / "checkpoints" / "last").state
    assert saved.loss_scale is not None
    assert saved.loss_scale_updates + saved.overflowed_steps >= short.SAVED - 1
    assert short.train(tiny_profile, begun, *words) == 0
    assert short.same_weights(whole, begun)
    last = [line for line in RunFolder(begun).read_metrics() if line["split"] == "train"][-1]
    assert last["loss_scale"] == saved.loss_scale
    again = load_checkpoint(begun / "checkpoints" / "last").state
    assert again == load_checkpoint(whole / "checkpoints" / "last").state
