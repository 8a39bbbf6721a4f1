"""Weights of an image backbone, by torchvision's name or from a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from data_shards.errors import InputError

_WRAPPER = "backbone."


def load_backbone_weights(backbone: nn.Module, name: str, weights: str) -> None:
    """Load `weights` into `backbone`, a headless torchvision model called `name`.

    `weights` is one of torchvision's names for this model ("IMAGENET1K_V1"; downloaded once and
    cached), or a .pt, .pth or .safetensors file with torchvision's keys, with or without the
    classifier and with or without the prefix of an `ImageEncoder`. Raises InputError when
    neither, when the download fails, or when a tensor is missing or of another shape.
    """
    available = torchvision.models.get_model_weights(name).__members__
    if weights in available:
        state = _download(name, weights)
    elif Path(weights).is_file():
        state = _read(Path(weights))
    else:
        raise InputError(
            f"weights={weights!r}: neither a file nor weights of {name}: give a .pt or "
            f".safetensors file or one of {', '.join(available)}"
        )
    own = backbone.state_dict()
    state = {key.removeprefix(_WRAPPER): value for key, value in state.items()}
    for key, value in own.items():
        # Norms with fixed statistics or by groups differ in counters only.
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
        if key not in state:
            raise InputError(f"weights={weights}: no tensor {key!r}: not weights of {name}")
        if state[key].shape != value.shape:
            raise InputError(
                f"weights={weights}: {key} has shape {tuple(state[key].shape)}, the model "
                f"{tuple(value.shape)}: choose the backbone and width the weights were made for"
            )
    backbone.load_state_dict({key: state[key] for key in own})


def _download(name: str, weights: str) -> dict[str, Tensor]:
    chosen = torchvision.models.get_model_weights(name)[weights]
    try:
        state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"weights={weights}: {chosen.url} could not be downloaded ({error}): fetch it "
            f"elsewhere and put it into {cache}, or give the file's path as weights"
        ) from error
    return state


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"weights={path}: not a readable weights file ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise InputError(
            f"weights={path}: expected a dictionary of tensors: save model.state_dict()"
        )
    return state
