"""The image encoder as a state dict that torchvision's model of its name takes unchanged."""

from __future__ import annotations

from pathlib import Path

import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.handover.model import Model
from distributed_pretrain.models.trunks.timm import PREFIX

# What the models of torchvision call their classifier.
_CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.")


def write(model: Model, folder: Path) -> str:
    """Write `<backbone>.safetensors`, and return how it is loaded.

    Raises InputError for an encoder that is not one of torchvision's.
    """
    name = backbone_of(model)
    save_file(torchvision_state(model), folder / f"{name}.safetensors")
    return (
        "import torchvision\nfrom safetensors.torch import load_file\n\n"
        f"model = torchvision.models.{name}()\n"
        f'model.load_state_dict(load_file("{name}.safetensors"))'
    )


def backbone_of(model: Model) -> str:
    """The name of the image encoder."""
    return model.config.method.image_encoder.backbone


def torchvision_state(model: Model) -> dict[str, Tensor]:
    """The trunk's tensors and, as zeros, those of torchvision's classifier, which nobody trained.

    Raises InputError for an encoder that is not one of torchvision's.
    """
    name, trunk = backbone_of(model), model.image_encoder.backbone
    try:
        whole: nn.Module = torchvision.models.get_model(name, weights=None)
    except ValueError as error:
        others = "timm, transformers" if name.startswith(PREFIX) else "transformers"
        raise InputError(
            f"image_encoder.backbone={name}: torchvision has no such model: export it --to "
            f"{others} or onnx"
        ) from error
    own, theirs = trunk.state_dict(), whole.state_dict()
    for key, tensor in theirs.items():
        there = own.get(key)
        if there is None and not key.startswith(_CLASSIFIERS):
            raise _refused(name, f"{key} is not in it")
        if there is not None and there.shape != tensor.shape:
            raise _refused(name, f"{key} has shape {tuple(there.shape)}")
    if more := sorted(own.keys() - theirs.keys()):
        raise _refused(name, f"{more[0]} is not torchvision's")
    if _differs_in_function(model):
        raise _refused(name, "its last_stride is 1")
    zeros = {key: each * 0 for key, each in theirs.items() if key not in own}
    return {key: (own | zeros)[key].cpu().contiguous() for key in theirs}


def _differs_in_function(model: Model) -> bool:
    """Whether it computes something else with the same tensors."""
    return model.config.method.image_encoder.last_stride != 2


def _refused(name: str, what: str) -> InputError:
    return InputError(
        f"the image encoder is no plain {name} ({what}): width, last_stride, last_stage and norm "
        "change it: export it --to transformers or onnx"
    )
