"""The encoder of a task: loaded, and what was and what was not loaded said."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable

import torch

from distributed_pretrain.downstream.settings import EncoderConfig
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.untrained.method import Untrained
from distributed_pretrain.pretrain.build import load_method
from distributed_pretrain.ranks import launcher_number


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
        _say(
            f"{config.run_folder} ({trained.config.method.name}, {config.checkpoint})",
            len(method.image_encoder.state_dict()),
            others,
        )
        return method
    assert config.image_encoder is not None
    # Every run of a task builds on the same one, whatever was drawn before.
    torch.manual_seed(config.seed)
    image_encoder = config.image_encoder.build()
    backbone, weights = config.image_encoder.backbone, config.image_encoder.weights
    loaded = 0 if weights is None else len(image_encoder.state_dict())
    of = f"{backbone} with {weights or 'a random start'}"
    _say(of, loaded, image_encoder.unused_weights)
    return Untrained(image_encoder)


def _say(what: str, loaded: int, unused: Iterable[str]) -> None:
    if launcher_number("RANK"):
        return
    parts = Counter(key.partition(".")[0] for key in unused)
    left = ", ".join(f"{part} ({count})" for part, count in parts.items()) or "nothing"
    print(f"encoder: {what}: {loaded} tensors loaded; not used: {left}", file=sys.stderr)
