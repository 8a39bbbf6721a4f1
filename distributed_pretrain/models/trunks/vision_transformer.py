"""Vision transformer trunks: torchvision's, with a map of patches instead of a classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from data_shards.errors import InputError
from distributed_pretrain.models.pooling import attention_of_first_token
from distributed_pretrain.models.trunks.base import Images, ImageTokens, Maps, Trunk

# Pixels of a patch's side, layers, heads, dim, dim of the layers' MLP.
_SIZES = {
    "vit_b_16": (16, 12, 12, 768, 3072),
    "vit_b_32": (32, 12, 12, 768, 3072),
    "vit_l_16": (16, 24, 16, 1024, 4096),
    "vit_l_32": (32, 24, 16, 1024, 4096),
    "vit_h_14": (14, 32, 16, 1280, 5120),
}
VISION_TRANSFORMERS = tuple(_SIZES)
# The size the position embeddings of torchvision's IMAGENET1K_V1 weights were made for.
_PRETRAINED_SIZE_PX = 224


class VisionTransformerTrunk(VisionTransformer, Trunk):
    """torchvision's vision transformer without its classifier, at any multiple of the patch size.

    Parameters have torchvision's names, and at 224 px the function is the same, so that weights go
    both ways. At other sizes the position embeddings are resized (bicubic) like an image.
    """

    patch_size: int
    image_size: int
    class_token: nn.Parameter
    conv_proj: nn.Module
    encoder: Any

    def __init__(self, name: str, *, layers: int | None = None) -> None:
        patch_px, own_layers, heads, dim, mlp_dim = _SIZES[name]
        if layers is None:
            layers = own_layers
        super().__init__(_PRETRAINED_SIZE_PX, patch_px, layers, heads, dim, mlp_dim)
        del self.heads
        self.channels = self.region_channels = dim

    def forward(self, images: Images) -> Maps:
        """The map of patches, at 1/16 (or 1/14, 1/32) of the images' size."""
        tokens, grid = self._embed(images)
        return _as_map(self.encoder.ln(self.encoder.layers(tokens)), grid)

    def tokens(self, images: Images) -> ImageTokens:
        """The class token, the patches, and where the first looks, after the last norm."""
        tokens, grid = self._embed(images)
        *first, last = self.encoder.layers
        for layer in first:
            tokens = layer(tokens)
        attention = _class_attention(last, tokens)
        encoded = self.encoder.ln(last(tokens))
        return ImageTokens(encoded[:, 0, :, None, None], _as_map(encoded, grid), attention)

    def _embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches with their positions added, and the grid of the patches."""
        check_whole_patches(images, self.patch_size)
        patches: Tensor = self.conv_proj(images)
        grid = (int(patches.shape[2]), int(patches.shape[3]))
        tokens = torch.cat(
            [self.class_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1
        )
        return tokens + self._positions(grid), grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        own: Tensor = self.encoder.pos_embedding
        side = self.image_size // self.patch_size
        if grid == (side, side):
            return own
        of_class, of_patches = own[:, :1], own[:, 1:]
        as_image = of_patches.mT.unflatten(2, (side, side))
        resized = F.interpolate(as_image, grid, mode="bicubic", align_corners=False)
        return torch.cat([of_class, resized.flatten(2).mT], dim=1)


def _as_map(encoded: Tensor, grid: tuple[int, int]) -> Tensor:
    last_map: Tensor = encoded[:, 1:].mT.unflatten(2, grid)
    return last_map


def check_whole_patches(images: Images, patch_size: int) -> None:
    """Raise InputError when a side of the images is no multiple of the patch."""
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        fitting = max(1, round(height / patch_size)) * patch_size
        raise InputError(
            f"images of {width} x {height} px are not cut into whole patches of {patch_size} px: "
            f"use data.image_size_px={fitting}"
        )


@torch.no_grad()
def _class_attention(layer: EncoderBlock, tokens: Tensor) -> Tensor:
    attention: nn.MultiheadAttention = layer.self_attention
    query, key, _ = attention.in_proj_weight.chunk(3)
    query_bias, key_bias, _ = attention.in_proj_bias.chunk(3)
    normed = layer.ln_1(tokens)
    return attention_of_first_token(
        F.linear(normed[:, 0], query, query_bias),
        F.linear(normed, key, key_bias),
        heads=attention.num_heads,
    )[:, 1:]
