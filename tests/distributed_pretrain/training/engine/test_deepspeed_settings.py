from __future__ import annotations

from typing import Any

import pytest

from data_shards.errors import InputError
from distributed_pretrain.training.settings import DeepSpeedConfig, TrainingConfig


def settings(stage: int = 1, **training: Any) -> dict[str, Any]:
    config = DeepSpeedConfig.model_validate({"zero_stage": stage, "bucket_elements": 1000})
    from distributed_pretrain.training.engine.deepspeed import deepspeed_settings

    return deepspeed_settings(TrainingConfig.model_validate(training), config)


def values_of(document: dict[str, Any]) -> list[Any]:
    return [
        leaf
        for value in document.values()
        for leaf in (values_of(value) if isinstance(value, dict) else [value])
    ]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_nothing_is_left_for_a_launcher_to_fill_in(stage: int) -> None:
    document = settings(stage)
    assert "auto" not in values_of(document)
    assert document["zero_optimization"]["stage"] == stage
    assert document["zero_optimization"]["reduce_bucket_size"] == 1000


def test_clipping_that_is_off_is_written_as_zero() -> None:
    # DeepSpeed under Accelerate clips at 1.0 where nothing is said.
    assert settings()["gradient_clipping"] == 0.0
    assert settings(clip_gradient_norm=0.5)["gradient_clipping"] == 0.5


def test_bf16_is_autocast_and_never_16_bit_parameters_or_sums() -> None:
    document = settings(precision="bf16")
    assert document["torch_autocast"] == {
        "enabled": True,
        "dtype": "bfloat16",
        "lower_precision_safe_modules": [],
    }
    assert document["communication_data_type"] == "fp32"
    assert not document["bf16"]["enabled"]
    assert not document["fp16"]["enabled"]
    assert not settings()["torch_autocast"]["enabled"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, "needs a launcher"),
        ({"channels_last": True}, r"training.channels_last=True does not go .* set it to false"),
        ({"precision": "fp16"}, r"training.precision=fp16 does not go with DeepSpeed's .* to bf16"),
        (
            {"distributed": {"name": "deepspeed", "zero_stage": 3}},
            r"training.gradient_norms_every_steps=100 .* zero_stage=3: set it to null",
        ),
    ],
)
def test_what_zero_cannot_do_is_refused_in_one_line(
    changes: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine

    if changes:
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setenv("LOCAL_RANK", "0")
    training = TrainingConfig.model_validate({"distributed": {"name": "deepspeed"}} | changes)
    with pytest.raises(InputError, match=complaint) as error:
        DeepSpeedEngine(training)
    assert "\n" not in str(error.value)
