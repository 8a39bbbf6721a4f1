"""The encoder of a task: loaded, and what was and what was not loaded said."""

from __future__ import annotations

from collections import Counter

import torch

from data_shards.starting import say_once
from distributed_pretrain.downstream.settings import EncoderConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.untrained.method import Untrained
from distributed_pretrain.pretrain.build import load_method


def load_encoder(config: EncoderConfig) -> Method:
    """A method whose `image_encoder` is the one to build on, on the CPU.

    Says on stderr, by one rank, how many tensors were loaded, and of what was not used the parts.
    Raises InputError for a folder without run or checkpoint, an unknown model, and weights of
    another.
    """
    if config.run_folder is not None:
        trained = load_method(config.run_folder, config.checkpoint)
        method = trained.method
        others = [key for key in method.state_dict() if not key.startswith("image_encoder.")]
        parts = Counter(key.partition(".")[0] for key in others)
        left = ", ".join(f"{part} ({count})" for part, count in parts.items()) or "nothing"
        say_once(
            f"encoder: {config.run_folder} ({trained.config.method.name}, {config.checkpoint}): "
            f"{len(method.image_encoder.state_dict())} tensors loaded; not used: {left}"
        )
        return method
    assert config.image_encoder is not None
    # Every run of a task builds on the same one, whatever was drawn before.
    torch.manual_seed(config.seed)
    image_encoder = config.image_encoder.build()
    if config.image_encoder.weights is None:  # of weights it is said where they are loaded
        say_once(f"encoder: {config.image_encoder.backbone} with a random start: 0 tensors loaded")
    return Untrained(image_encoder)
