from __future__ import annotations

import math
import os
import resource
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from data_shards.errors import InputError
from distributed_pretrain.run_folder.checkpoint import TrainingState
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics_log import MetricsLog, is_timing, read_metrics
from distributed_pretrain.training.schedules import learning_rate_factor
from distributed_pretrain.training.settings import (
    EarlyStoppingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from distributed_pretrain.training.stopping import judge_validation


def test_the_authors_cosine_falls_over_one_epoch_and_rises_over_the_next() -> None:
    schedule = ScheduleConfig(name="cosine_per_epoch")
    shares = [
        learning_rate_factor(schedule, step, steps_per_epoch=411, total_steps=41100)
        for step in (0, 411, 822)
    ]
    assert shares == pytest.approx([1.0, 0.0, 1.0])
    quarter = learning_rate_factor(schedule, 137, steps_per_epoch=411, total_steps=41100)
    assert quarter == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


def test_warm_up_rises_linearly_to_the_peak_and_cosine_ends_at_its_share() -> None:
    schedule = ScheduleConfig(name="cosine", warmup_steps=4, final_share=0.1)
    shares = [
        learning_rate_factor(schedule, step, steps_per_epoch=10, total_steps=24)
        for step in (0, 1, 2, 3, 4, 14, 24)
    ]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.55, 0.1])


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 0.4}, {"warmup_share": 1 / 6}])
def test_warm_up_may_be_given_in_epochs_or_as_a_share_of_the_run(warmup: dict[str, float]) -> None:
    in_steps, otherwise = (
        ScheduleConfig.model_validate({"name": "cosine", **each})
        for each in ({"warmup_steps": 4}, warmup)
    )
    for step in range(24):
        assert learning_rate_factor(
            otherwise, step, steps_per_epoch=10, total_steps=24
        ) == learning_rate_factor(in_steps, step, steps_per_epoch=10, total_steps=24)
    with pytest.raises(ValidationError, match="give one of"):
        ScheduleConfig(warmup_steps=3, warmup_share=0.5)


def test_the_learning_rate_falls_when_the_watched_metric_stays_on_a_plateau() -> None:
    """As torch's ReduceLROnPlateau does with the same scores."""
    scores = [1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    schedule = ScheduleConfig(name="plateau", patience=2, factor=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.1)
    state = TrainingState()
    for score in scores:
        judge_validation(state, TrainingConfig(), schedule, {"total": score})
        reference.step(score)
        share = learning_rate_factor(
            schedule,
            7,
            steps_per_epoch=1,
            total_steps=50,
            reductions=state.learning_rate_reductions,
        )
        assert share == pytest.approx(optimizer.param_groups[0]["lr"])
    assert state.learning_rate_reductions == 2


def test_a_metric_that_the_validation_split_cannot_give_is_refused() -> None:
    config = TrainingConfig(best_metric="auroc", best_is="highest")
    with pytest.raises(InputError, match=r"best_metric=auroc: the validation split has none"):
        judge_validation(TrainingState(), config, ScheduleConfig(), {"total": 1.0})


def judged(scores: list[float], **settings: object) -> list[tuple[bool, bool]]:
    config = TrainingConfig.model_validate(settings)
    state = TrainingState()
    return [
        judge_validation(state, config, ScheduleConfig(), {config.best_metric: score})
        for score in scores
    ]


def test_training_stops_after_patience_validations_without_enough_gain() -> None:
    stopping = EarlyStoppingConfig(patience=2, min_delta=0.1)
    outcome = judged([1.0, 0.95, 0.93, 0.5], early_stopping=stopping)
    assert outcome == [(True, False), (True, False), (True, True), (True, False)]


def test_any_metric_can_be_watched_and_recalls_are_best_when_high() -> None:
    outcome = judged([0.1, 0.3, 0.2], best_metric="recall_sum", best_is="highest")
    assert [best for best, _ in outcome] == [True, True, False]
    with pytest.raises(ValidationError, match="set best_is"):
        TrainingConfig(best_metric="recall_sum")


def test_resuming_cuts_later_and_half_written_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, resume_step=0)
    for step in (1, 2, 3):
        log.write(step, "train", {"total": 0.5 * step, "step_seconds": 1.0})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 4, "spl')
    MetricsLog(path, resume_step=2).close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    assert read_metrics(path)[1]["total"] == 1.0


def test_timing_fields_are_the_named_ones() -> None:
    assert is_timing("pairs_per_second")
    assert is_timing("data_wait_share")
    assert not is_timing("total")


def test_metrics_that_a_full_disk_refuses_are_one_clear_line(tmp_path: Path) -> None:
    """The limit on file sizes stands in for the disk: the kernel refuses the write alike."""
    log = MetricsLog(tmp_path / "metrics.jsonl", resume_step=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(InputError, match=r"metrics.jsonl: not written .*free some space"):
            log.write(1, "train", {"total": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.close()


def test_a_run_folder_belongs_to_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed_pretrain.run_folder.folder.LOCK_PATIENCE_SECONDS", 0.0)
    run = RunFolder(tmp_path / "run")
    with run.locked():
        with (
            pytest.raises(InputError, match=rf"in use by process {os.getpid()} on "),
            run.locked(),
        ):
            pass
        assert (run.path / "lock").exists()
    with run.locked():
        pass
    assert not run.path.exists()
