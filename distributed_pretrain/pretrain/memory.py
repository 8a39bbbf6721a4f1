"""`memory`: what a profile needs of a GPU, on any machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from data_shards.command_line import DONE
from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.pretrain.build import memory_of
from distributed_pretrain.pretrain.random_weights import with_random_weights
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.memory.estimate import (
    GIB,
    MemoryEstimate,
    device_bytes,
    refuse_what_does_not_fit,
)
from distributed_pretrain.training.settings import TrainingConfig

_GPU = torch.device("cuda")


def run_memory(profile: Path, overrides: Sequence[str], *, ranks: int) -> int:
    """Print the estimate for each of `ranks` GPUs.

    Raises InputError where it is more than `training.device_memory_gib`, or than the GPU here has.
    """
    config = load_profile(PretrainConfig, profile, overrides)
    config.check_ranks(ranks)
    shape = _shape_of(config)

    def estimated(training: TrainingConfig) -> MemoryEstimate:
        changed = config.model_copy(update={"training": training})
        return memory_of(shape, changed, device=_GPU, ranks=ranks)

    estimate = estimated(config.training)
    for name, size in (*estimate.parts().items(), ("in all, about", estimate.total)):
        print(f"  {name:36s} {size / GIB:8.2f} GiB")
    capacity = device_bytes(config.training, _GPU)
    if capacity is not None:
        refuse_what_does_not_fit(estimate, config, capacity, estimated)
        print(f"fits a device with {capacity / GIB:.2f} GiB")
    return DONE


def estimate_of(config: PretrainConfig, *, ranks: int) -> MemoryEstimate:
    """For each of `ranks` GPUs. Raises InputError for a profile that cannot be built."""
    return memory_of(_shape_of(config), config, device=_GPU, ranks=ranks)


def _shape_of(config: PretrainConfig) -> Method:
    """The method with weights that mean nothing."""
    random = with_random_weights(config)
    own = random.method.model_copy(update={"report_encoder": config.method.report_encoder})
    # Of encoders with a tokenizer of their own, whose size is not known here, any will do.
    vocabulary = config.vocabulary_size if random.method == own else 1
    try:
        return own.build(Sizes(vocabulary, classes=len(config.data.labels)))
    except InputError:
        if not isinstance(own.report_encoder, PretrainedReportEncoderConfig):
            raise
        name = own.report_encoder.model
        print(f"{name}: cannot be loaded here: counted as a BERT-base", file=sys.stderr)
        sizes = Sizes(random.vocabulary_size, classes=len(config.data.labels))
        return random.method.build(sizes)
