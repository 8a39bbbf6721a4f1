"""An image as one vector and its regions, for methods that compare these with words."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import ImageEncoder, encode_real
from distributed_pretrain.models.trunks.resnet import RESNETS, ResNetTrunk
from distributed_pretrain.models.trunks.vision_transformer import (
    VISION_TRANSFORMERS,
    VisionTransformerTrunk,
)


@dataclass(frozen=True)
class ImageTokens:
    """What GLoRIA, LIMITR and MGCA read of an image encoder, zeros for masked images.

    `class_attention` is what the class token pays each region (see `PatchTokens`), None where
    there is no class token.
    """

    image: Float[Tensor, "batch channels"]
    regions: Float[Tensor, "batch rows columns region_channels"]
    class_attention: Float[Tensor, "batch regions"] | None


def region_channels(encoder: ImageEncoder) -> int:
    """The channels of the regions of `encode_image_tokens`.

    Raises InputError for a backbone that is neither ResNet nor vision transformer.
    """
    trunk = encoder.backbone
    if isinstance(trunk, ResNetTrunk):
        return trunk.third_channels
    if isinstance(trunk, VisionTransformerTrunk):
        return trunk.channels
    raise InputError(
        "image_encoder.backbone: regions are the third stage of a ResNet or the patches of a "
        f"vision transformer: choose one of {', '.join(RESNETS + VISION_TRANSFORMERS)}"
    )


def encode_image_tokens(
    encoder: ImageEncoder,
    images: Float[Tensor, "batch 1 height width"],
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> ImageTokens:
    """The class token and the patches of a vision transformer, after its last norm.

    Of a ResNet the mean of the last map, and the map of the third stage, which has twice the
    rows and columns (as many with `last_stride` 1): 19 x 19 for images of 299 px. Images whose
    `sample_mask` is False are not encoded.
    """
    trunk = encoder.backbone
    if isinstance(trunk, VisionTransformerTrunk):

        def patch_tokens(pixels: Tensor) -> tuple[Tensor, ...]:
            tokens = trunk.tokens(pixels)
            return tokens.class_token, tokens.patches, tokens.class_attention

        image, patches, attention = encode_real(patch_tokens, images, sample_mask)
        return ImageTokens(image, patches.permute(0, 2, 3, 1), attention)
    assert isinstance(trunk, ResNetTrunk), "region_channels refuses others"
    third_map, last_map = encode_real(trunk.last_two_maps, images, sample_mask)
    return ImageTokens(last_map.mean(dim=(2, 3)), third_map.permute(0, 2, 3, 1), None)
