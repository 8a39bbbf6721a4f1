"""Weights of an image trunk, published ones by their name or from a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_shards.errors import InputError
from data_shards.starting import say_once
from distributed_pretrain.models.trunks.origins import ORIGINS, Origin, from_whoever

# Where checkpoints of trainers keep the state dict.
_STATE = ("state_dict", "model_state_dict", "model")
_MOST_NAMED = 6
# A layer's number in the name of a tensor.
_LAYER = re.compile(r"(?<=[._])\d+(?=\.)")


def load_weights(
    trunk: nn.Module,
    name: str,
    weights: str,
    *,
    published: Collection[str],
    download: Callable[[str], dict[str, Tensor]],
) -> None:
    """Load `weights` into `trunk`, the model called `name` without its classifier.

    `weights` is one of those `published`, which `download` fetches, or a .pt, .pth or .safetensors
    file with the model's keys, with or without the classifier, or of one of `ORIGINS`: a run of
    this project (checkpoints/last/model.safetensors in its folder), or another project's. It is
    said on stderr by whose names they were, how many tensors were loaded, and which were left.
    Raises InputError when neither, when a tensor is missing, of another shape or not finite, and
    where there are tensors of more layers than the model has.
    """
    if weights in published:
        state = download(weights)
    elif Path(weights).is_file():
        state = _read(Path(weights))
    else:
        raise InputError(
            f"weights={weights!r}: neither a file nor weights of {name}: give a .pt or "
            f".safetensors file or one of {', '.join(published)}"
        )
    own = trunk.state_dict()
    origin, state, left = from_whoever(state, own)
    for key, value in own.items():
        # Norms with fixed statistics or by groups differ in counters only.
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
        if key not in state:
            raise InputError(
                f"weights={weights}: no tensor {key!r}: not weights of {name}, by the names of "
                f"{', '.join(each.project for each in ORIGINS)}"
            )
        if state[key].is_floating_point() != value.is_floating_point():
            raise InputError(
                f"weights={weights}: {key} has numbers of type {state[key].dtype}, the model "
                f"{value.dtype}: not weights of {name}"
            )
        if state[key].shape != value.shape:
            raise InputError(
                f"weights={weights}: {key} has shape {tuple(state[key].shape)}, the model "
                f"{tuple(value.shape)}: choose the backbone and width the weights were made for"
            )
        if not torch.isfinite(state[key]).all():
            raise InputError(f"weights={weights}: {key} has numbers that are not finite")
    if surplus := surplus_layer(state, own):
        raise InputError(
            f"weights={weights}: {surplus} has no place in {name}, which has fewer layers: choose "
            "the backbone the weights were made for"
        )
    trunk.load_state_dict({key: state[key] for key in own})
    say_once(f"weights={weights}: {_told(origin, name, len(own), left)}")


def _told(origin: Origin, name: str, loaded: int, left: Sequence[str]) -> str:
    """Whose the tensors were, how many were loaded, and from where the others are."""
    # Two parts of a name say what a tensor is of: gloria.text_encoder.
    of = Counter(".".join(key.split(".")[:2]) for key in left)
    said = ", ".join(f"{part} ({count})" for part, count in of.most_common(_MOST_NAMED))
    more = f" and {len(of) - _MOST_NAMED} more" if len(of) > _MOST_NAMED else ""
    rest = f"; {len(left)} left: {said}{more}" if left else "; none left"
    return f"by the names of {origin.project}: {loaded} tensors into {name}{rest}"


def surplus_layer(names: Iterable[str], own: Collection[str]) -> str:
    """The first of `names` that is as one of a model's `own`, but of a layer it has not; or ""."""
    kinds = {_LAYER.sub("N", name) for name in own}
    others = (name for name in sorted(names) if name not in own)
    return next((name for name in others if _LAYER.sub("N", name) in kinds), "")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Of tensors and plain containers: no pickle's code is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make loaders raise anything
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"weights={path}: not a readable weights file ({reason}): give tensors alone; of a "
            "checkpoint with settings beside them, where you trust it, save "
            'torch.load(FILE, weights_only=False)["state_dict"]'
        ) from error
    for key in _STATE:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    keys_are_names = isinstance(state, dict) and all(isinstance(each, str) for each in state)
    if not keys_are_names or not all(isinstance(each, Tensor) for each in state.values()):
        raise InputError(
            f"weights={path}: expected a dictionary of tensors: save model.state_dict()"
        )
    return dict(state)
