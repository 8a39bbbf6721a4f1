"""Which engine a run trains with."""

from __future__ import annotations

from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import TrainingConfig


def make_engine(training: TrainingConfig, *, global_batch: int) -> Engine:
    """This process's part in the ranks that its launcher's variables describe."""
    if training.distributed.name == "ddp":
        return Engine(training)
    # DeepSpeed takes seconds to import, and not everybody has it.
    from distributed_pretrain.training.engine.deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(training, global_batch=global_batch)
