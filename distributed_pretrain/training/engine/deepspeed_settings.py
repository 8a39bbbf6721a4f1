"""DeepSpeed's settings from ours, written out in full: its defaults differ from its launchers'."""

from __future__ import annotations

from typing import Any

from distributed_pretrain.training.settings import DeepSpeedConfig, TrainingConfig


def deepspeed_settings(training: TrainingConfig, config: DeepSpeedConfig) -> dict[str, Any]:
    """DeepSpeed's JSON document for one run; nothing in it is left `auto`.

    Parameters, gradients, their reduction and the optimizer are float32; `bf16` casts inside the
    forward only, as autocast does under DDP.
    """
    return {
        # Any number: it is for reports, which are off.
        "train_micro_batch_size_per_gpu": 1,
        # The losses come divided and the engine marks the last micro-batch: a number here would
        # divide the gradients once more.
        "gradient_accumulation_steps": 1,
        # Written even when off (0): left open, Accelerate fills in 1.0.
        "gradient_clipping": training.clip_gradient_norm or 0.0,
        "zero_optimization": {
            "stage": config.zero_stage,
            "reduce_bucket_size": config.bucket_elements,
            "allgather_bucket_size": config.bucket_elements,
            "overlap_comm": config.overlap_communication,
            "reduce_scatter": True,
            "contiguous_gradients": True,
        },
        # torch's own Adam: what DDP runs with, and what canonical checkpoints hold.
        "zero_allow_untested_optimizer": True,
        # Either would turn the parameters themselves into 16-bit numbers.
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        # Without the empty list, gradients of linear and convolution layers travel in 16 bits.
        "torch_autocast": {
            "enabled": training.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "communication_data_type": "fp32",
        "prescale_gradients": False,
        "gradient_predivide_factor": 1.0,
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }
