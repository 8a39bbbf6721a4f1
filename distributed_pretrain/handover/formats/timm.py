"""The image encoder as a checkpoint that `timm.create_model` takes by its path."""

from __future__ import annotations

from pathlib import Path

import torchvision
from safetensors.torch import save_file
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.handover.formats.torchvision import backbone_of, torchvision_state
from distributed_pretrain.handover.model import Model
from distributed_pretrain.models.trunks.resnet import RESNETS
from distributed_pretrain.models.trunks.timm import PREFIX, TimmMaps, TimmTransformer


def write(model: Model, folder: Path) -> str:
    """Write `<architecture>.safetensors`, and return how it is loaded.

    Raises InputError for an encoder that timm has not by the same names.
    """
    name, state = _whole(model)
    save_file(state, folder / f"{name}.safetensors")
    return (
        f'import timm\n\nmodel = timm.create_model("{name}", checkpoint_path="{name}.safetensors")'
    )


def _whole(model: Model) -> tuple[str, dict[str, Tensor]]:
    name, trunk = backbone_of(model), model.image_encoder.backbone
    if isinstance(trunk, TimmMaps | TimmTransformer):
        state = trunk.whole_state()
        return trunk.architecture, {key: each.cpu().contiguous() for key, each in state.items()}
    if name in RESNETS:
        # torchvision's names are timm's.
        return name, torchvision_state(model)
    if name not in torchvision.models.list_models():
        raise InputError(
            f"image_encoder.backbone={name}: timm has no such model: export it --to transformers "
            "or onnx"
        )
    raise InputError(
        f"image_encoder.backbone={name}: timm has not its names: export it --to torchvision, or "
        f"train with one of timm's as {PREFIX}NAME"
    )
