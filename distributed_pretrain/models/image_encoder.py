"""Image encoders: one grey channel in, the last feature map of a torchvision backbone out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torchvision
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from data_shards.errors import InputError
from distributed_pretrain.models.norms.choice import exchange_batch_norms
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.trunks.resnet import RESNETS, ResNetTrunk
from distributed_pretrain.models.trunks.vision_transformer import (
    VISION_TRANSFORMERS,
    VisionTransformerTrunk,
)
from distributed_pretrain.models.trunks.weights import load_backbone_weights

# Where each family's last feature map (batch, channels, rows, columns) leaves its graph.
_LAST_MAP_OF_FAMILY = {
    "convnext": "features",
    "densenet": "relu",
    "efficientnet": "features",
    "mobilenet": "features",
    "regnet": "trunk_output",
    "resnext": "layer4",
    "swin": "permute",
    "wide_resnet": "layer4",
}
_MAP = "last_map"


class ImageEncoder(nn.Module):
    """A backbone that sees a grey image as three equal channels; `channels` is its map's depth."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels

    def forward(
        self,
        images: Float[Tensor, "batch 1 height width"],
        sample_mask: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch {self.channels} rows columns"]:
        """The last feature map; its cells are the image regions.

        Images whose `sample_mask` is False are not encoded, so they reach no batch statistic,
        and get a map of zeros. In training mode at least one image must be real, of this rank, or
        of all ranks together where the norms are synchronised.
        """
        (last_map,) = encode_real(self._encode, images, sample_mask)
        return last_map

    def _encode(self, pixels: Tensor) -> tuple[Tensor]:
        maps = self.backbone(pixels)
        last_map: Tensor = maps[_MAP] if isinstance(maps, dict) else maps
        return (last_map,)


def encode_real(
    encode: Callable[[Tensor], tuple[Tensor, ...]],
    images: Float[Tensor, "batch 1 height width"],
    sample_mask: Bool[Tensor, " batch"] | None,
) -> tuple[Shaped[Tensor, "batch ..."], ...]:
    """What `encode` makes of the real images, as three equal channels; zeros for the others.

    Images whose `sample_mask` is False are not encoded.
    """
    # Left out rather than masked, since the backbone's batch norms know nothing of masks; that
    # the host reads the mask costs a wait for the device at the beginning of a step.
    if sample_mask is None or bool(sample_mask.all()):
        return encode(images.expand(-1, 3, -1, -1))
    rows = (sample_mask.nonzero().squeeze(1),)
    return tuple(
        encoded.new_zeros(len(images), *encoded.shape[1:]).index_put(rows, encoded)
        for encoded in encode(images[sample_mask].expand(-1, 3, -1, -1))
    )


def make_image_encoder(
    backbone: str = "resnet50",
    *,
    weights: str | None = None,
    width: float = 1.0,
    last_stride: Literal[1, 2] = 2,
    norm: Norm = "sync",
) -> ImageEncoder:
    """An image encoder by torchvision's name of its backbone.

    ResNets (18, 34, 50, 101, 152) take every option (see `ResNetTrunk`); ConvNeXt, DenseNet,
    EfficientNet, MobileNet, RegNet, ResNeXt, Swin, ViT and wide ResNets are torchvision's own,
    without `width` and `last_stride`. ConvNeXt, Swin and ViT normalise each position by itself:
    what "sync" and "group" promise holds as they are, and "local" and "frozen" are refused.
    `weights` are a name ("IMAGENET1K_V1") or a file; None starts at random. Raises InputError for
    an unknown backbone, an option it does not have, or bad weights.
    """
    if backbone in RESNETS:
        trunk = ResNetTrunk(backbone, width=width, last_stride=last_stride, norm=norm)
        encoder = ImageEncoder(trunk, trunk.channels)
    else:
        if (width, last_stride) != (1.0, 2):
            raise InputError(
                f"backbone={backbone}: width and last_stride are options of the ResNets: "
                f"leave them out or choose one of {', '.join(RESNETS)}"
            )
        if backbone in VISION_TRANSFORMERS:
            transformer = VisionTransformerTrunk(backbone)
            encoder = ImageEncoder(transformer, transformer.channels)
        else:
            encoder = _torchvision_encoder(backbone)
        # After the tracing, which would look into layers that are not torch's own.
        exchanged = exchange_batch_norms(encoder.backbone, norm)
        if not exchanged and norm in ("local", "frozen"):
            raise InputError(
                f"backbone={backbone}: has no batch norm for norm={norm} to change: leave it out"
            )
    if weights is not None:
        load_backbone_weights(encoder.backbone, backbone, weights)
    return encoder


def _torchvision_encoder(backbone: str) -> ImageEncoder:
    nodes = [n for family, n in _LAST_MAP_OF_FAMILY.items() if backbone.startswith(family)]
    if not nodes or backbone not in torchvision.models.list_models(module=torchvision.models):
        raise InputError(
            f"backbone={backbone!r}: not a torchvision model with a feature map: choose one of "
            f"{', '.join(RESNETS + VISION_TRANSFORMERS)} or a member of "
            f"{', '.join(_LAST_MAP_OF_FAMILY)}"
        )
    model = torchvision.models.get_model(backbone, weights=None)
    extractor = create_feature_extractor(model, {nodes[0]: _MAP}).eval()
    with torch.no_grad():
        channels = extractor(torch.zeros(1, 3, 64, 64))[_MAP].shape[1]
    return ImageEncoder(extractor.train(), channels)
