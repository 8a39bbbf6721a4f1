"""BYOL, and what PixPro shares with it: a teacher in the trainer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.data.tokenization import NoReports
from distributed_pretrain.methods.byol.method import Byol, ByolOutputs
from distributed_pretrain.methods.byol.settings import ByolConfig
from distributed_pretrain.methods.encoders import ImageEncoderConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.build import build_method, pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from tests.tiny.batches import random_batch
from tests.tiny.methods import PROFILES, tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_byol", norm="group")
STEPS = 6


def tiny_byol() -> Byol:
    method = tiny_method(PROFILE)
    assert isinstance(method, Byol)
    return method


def student_and_teacher(method: Byol) -> list[tuple[Tensor, Tensor]]:
    return [
        *zip(
            method.image_encoder.parameters(),
            method.encoder_teacher.network.parameters(),
            strict=True,
        ),
        *zip(
            method.projection.parameters(),
            method.projection_teacher.network.parameters(),
            strict=True,
        ),
    ]


def test_the_defaults_are_those_of_the_comparison_and_of_the_paper() -> None:
    method = ByolConfig(image_encoder=ImageEncoderConfig(weights=None)).build(Sizes(vocabulary=0))
    for head, inputs in ((method.projection, 2048), (method.predictor, 128)):
        count = sum(each.numel() for each in head.parameters())
        assert count == (inputs + 1) * 4096 + 2 * 4096 + (4096 + 1) * 128
    assert method.config.teacher_momentum == 0.996


@pytest.mark.parametrize(("name", "learning_rate"), [("byol_a100", 1e-4), ("byol_a100_30", 3e-5)])
def test_the_profiles_have_the_settings_of_the_comparison(name: str, learning_rate: float) -> None:
    profile = load_profile(PretrainConfig, PROFILES[name])
    optimizer, data = profile.optimizer, profile.data
    assert (optimizer.name, optimizer.weight_decay) == ("adam", 1e-4)
    assert optimizer.learning_rate == learning_rate
    assert data.patient_fraction == (0.3 if name.endswith("30") else 1)
    assert (data.global_batch, data.normalisation) == (64, "dataset")
    assert profile.schedule.name == "cosine"
    assert (profile.schedule.warmup_epochs, profile.training.epochs) == (1, 100)


def test_targets_are_the_teachers_projections_and_carry_no_gradient() -> None:
    method, batch = tiny_byol(), random_batch(PROFILE, 3)
    outputs = method(batch)
    # At the beginning the teacher is the student.
    student = method.projection(method.image_encoder(batch.images).mean(dim=(2, 3)))
    torch.testing.assert_close(outputs.first_target, student)
    assert not outputs.first_target.requires_grad
    assert outputs.first_prediction.requires_grad


def test_the_teacher_follows_by_a_momentum_that_rises_to_1() -> None:
    method = tiny_byol()
    torch.manual_seed(3)
    with torch.no_grad():
        for student, _ in student_and_teacher(method):
            student.add_(torch.randn_like(student))
    before = [teacher.clone() for _, teacher in student_and_teacher(method)]
    method.after_update(progress=1.0)
    for (_, teacher), old in zip(student_and_teacher(method), before, strict=True):
        assert torch.equal(teacher, old)
    method.after_update(progress=0.5)
    momentum = (1 + method.config.teacher_momentum) / 2
    for (student, teacher), old in zip(student_and_teacher(method), before, strict=True):
        torch.testing.assert_close(teacher, momentum * old + (1 - momentum) * student)


def test_each_view_predicts_the_other_ones_target() -> None:
    method, batch = tiny_byol(), random_batch(PROFILE, 2)
    q_1, q_2, *_ = torch.eye(4)[:, None].expand(-1, 2, -1)
    targets = {"first_target": q_2, "second_target": q_1}
    predictions = {"first_prediction": q_1, "second_prediction": q_2}
    outputs = ByolOutputs(**predictions, **targets, sample_mask=batch.sample_mask)
    assert method.loss(outputs)["total"].item() == 0


@pytest.mark.parametrize("name", ["phantom_byol", "phantom_pixelpro"])
def test_weights_cut_up_by_zero_3_are_refused(name: str) -> None:
    config = tiny_profile(name)
    for stage in (2, 3):
        distributed = {"name": "deepspeed", "zero_stage": stage}
        training = config.training.model_dump() | {"distributed": distributed}
        cut = PretrainConfig.model_validate(config.model_dump() | {"training": training})
        if stage == 2:
            build_method(cut, NoReports())
            continue
        with pytest.raises(InputError, match=r"zero_stage=3 .* use zero_stage 2 or less, or "):
            build_method(cut, NoReports())


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_synthetic_shards(
        folder, studies={"train": 12, "validate": 5}, studies_a_shard=6, longest_side_px=72
    )
    return folder


def short_run(name: str, shards: Path, run_folder: Path) -> PretrainConfig:
    """Six steps of four studies, each of them saved and kept."""
    values = tiny_profile(name).model_dump() | {"run_folder": run_folder}
    values["data"] |= {"shards": shards, "image_size_px": 64, "global_batch": 4}
    values["training"] |= {
        "max_steps": STEPS,
        "validate_every_steps": 3,
        "checkpoint_every_steps": 1,
        "keep_checkpoints": STEPS,
    }
    return PretrainConfig.model_validate(values)


@pytest.mark.parametrize("name", ["phantom_byol", "phantom_pixelpro"])
def test_a_run_with_a_teacher_goes_on_exactly(name: str, shards: Path, tmp_path: Path) -> None:
    whole = short_run(name, shards, tmp_path / "whole")
    assert pretrain(whole)
    # As if it had been killed in the fifth step.
    resumed = short_run(name, shards, tmp_path / "resumed")
    shutil.copytree(whole.run_folder, resumed.run_folder, symlinks=True)
    for step in (5, 6):
        shutil.rmtree(resumed.run_folder / "checkpoints" / f"step_{step:08d}")
    assert pretrain(resumed)
    assert [start["step"] for start in RunFolder(resumed.run_folder).starts.read()] == [0, 4]
    ours, expected = (
        load_file(run.run_folder / "checkpoints" / "last" / "model.safetensors")
        for run in (resumed, whole)
    )
    assert ours.keys() == expected.keys()
    assert all(ours[key].equal(expected[key]) for key in expected)
    lines = [
        [
            {key: value for key, value in line.items() if not is_timing(key)}
            for line in RunFolder(run.run_folder).read_metrics()
        ]
        for run in (resumed, whole)
    ]
    assert lines[0] == lines[1]
    # The teacher was neither the student nor left where it began.
    fourth = load_file(whole.run_folder / "checkpoints" / "step_00000004" / "model.safetensors")
    for key in (key for key in fourth if key.startswith("encoder_teacher.") and "conv" in key):
        assert not fourth[key].equal(expected[key])
        student = key.replace("encoder_teacher.network", "image_encoder")
        assert not fourth[key].equal(fourth[student])


def test_a_skipped_step_does_not_move_the_teacher(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[tuple[float, bool]] = []
    poisoned: list[str] = []
    follow, terms = Byol.after_update, Byol.sample_terms

    def noted(method: Byol, *, progress: float, made: Tensor) -> None:
        updates.append((progress, bool(made)))
        follow(method, progress=progress, made=made)

    def once_nan(method: Byol, outputs: ByolOutputs) -> dict[str, Tensor]:
        found = terms(method, outputs)
        if len(updates) == 2 and not poisoned:
            poisoned.extend(found)
            return {name: value * torch.nan for name, value in found.items()}
        return found

    monkeypatch.setattr(Byol, "after_update", noted)
    monkeypatch.setattr(Byol, "sample_terms", once_nan)
    config = short_run("phantom_byol", shards, tmp_path / "run")
    assert pretrain(config)
    assert updates == [(step / STEPS, step != 2) for step in range(STEPS)]
    skipped, before = (
        load_file(config.run_folder / "checkpoints" / f"step_{step:08d}" / "model.safetensors")
        for step in (3, 2)
    )
    assert all(skipped[key].equal(before[key]) for key in before)
