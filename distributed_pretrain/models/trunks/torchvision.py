"""Trunks of torchvision's other families: its own layers up to the last feature map."""

from __future__ import annotations

import torch
import torchvision
from torch import nn

from distributed_pretrain.models.trunks.base import Images, Maps, Trunk

_RESNET_LAYERS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
# The layers of each family that lead to its last map (batch, channels, rows, columns).
_LAYERS_OF_FAMILY = {
    "convnext": ("features",),
    "densenet": ("features", "relu"),
    "efficientnet": ("features",),
    "mobilenet": ("features",),
    "regnet": ("stem", "trunk_output"),
    "resnext": _RESNET_LAYERS,
    "swin": ("features", "norm", "permute"),
    "wide_resnet": _RESNET_LAYERS,
}
TORCHVISION_FAMILIES = tuple(_LAYERS_OF_FAMILY)
TORCHVISION_MODELS: tuple[str, ...] = tuple(
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if name.startswith(TORCHVISION_FAMILIES)
)


class TorchvisionTrunk(Trunk):
    """The layers of a torchvision model before its classifier, under torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        model = torchvision.models.get_model(name, weights=None)
        family = next(each for each in TORCHVISION_FAMILIES if name.startswith(each))
        for layer in _LAYERS_OF_FAMILY[family]:
            # DenseNet's last activation is a function and no layer.
            self.add_module(layer, getattr(model, layer, nn.ReLU(inplace=True)))
        self.eval()
        with torch.no_grad():
            self.channels = self(torch.zeros(1, 3, 64, 64)).shape[1]
        self.train()

    def forward(self, images: Images) -> Maps:
        """The last feature map, at 1/32 of the images' size."""
        maps = images
        for layer in self.children():
            maps = layer(maps)
        return maps
