"""Images and reports at two levels, as GLoRIA and LIMITR embed them: the whole, and its parts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.image_tokens import (
    ImageTokens,
    encode_image_tokens,
    region_channels,
)
from distributed_pretrain.models.pooling import mean_of_tokens
from distributed_pretrain.models.report_encoder import ReportEncoder, sum_word_pieces
from distributed_pretrain.models.trunks.vision_transformer import VisionTransformerTrunk
from distributed_pretrain.ranks import sum_over_ranks


class TwoLevelHeads(nn.Module):
    """Joint-space vectors of an image and of its regions (see `encode_image_tokens`).

    Regions go through a linear layer without bias, as the papers' 1x1 convolution; the image
    through one with bias. 1,573,632 and 786,432 parameters for a ResNet-50 and 768 dimensions.
    Raises InputError for an encoder without regions.
    """

    def __init__(self, image_encoder: ImageEncoder, dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(image_encoder.channels, dim)
        self.region = nn.Linear(region_channels(image_encoder), dim, bias=False)

    def forward(
        self, tokens: ImageTokens
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rows columns dim"]]:
        """The vectors of the images and of their regions, of any length."""
        return self.image(tokens.image), self.region(tokens.regions)


def check_upsampling(image_encoder: ImageEncoder, size_px: int | None) -> None:
    """Raise InputError where a vision transformer cannot cut `size_px` into whole patches."""
    trunk = image_encoder.backbone
    if size_px is None or not isinstance(trunk, VisionTransformerTrunk):
        return
    if size_px % trunk.patch_size:
        fitting = round(size_px / trunk.patch_size) * trunk.patch_size
        raise InputError(
            f"method.upsample_px={size_px}: not cut into whole patches of {trunk.patch_size} px: "
            f"use {fitting}, or null"
        )


def upsampled(
    images: Float[Tensor, "batch 1 height width"], size_px: int | None
) -> Float[Tensor, "batch 1 new_height new_width"]:
    """The images stretched to `size_px` x `size_px`, bilinear; None leaves them as they are.

    More pixels make a finer grid of regions. The authors align the centres of the corner pixels;
    here the corners themselves are aligned, so that a region lies where it is looked for later.
    """
    if size_px is None:
        return images
    return F.interpolate(images, size=(size_px, size_px), mode="bilinear", align_corners=False)


def encode_present(
    encoder: ImageEncoder,
    images: Float[Tensor, "batch 1 height width"],
    present: Bool[Tensor, " batch"],
) -> ImageTokens:
    """`encode_image_tokens` of images that may all be absent, in training too.

    Where no rank has one, all tokens are zeros, every parameter gets a gradient of zeros, and the
    norms' statistics stay as they are. All ranks must call this together.
    """
    # A rank without any still joins the exchanges of synchronised norms, if others have some. If
    # nobody has, torch's own synchronised norm would divide by the number of images.
    anywhere = bool(sum_over_ranks(present.sum().float()) > 0)
    with contextlib.nullcontext() if anywhere else _evaluating(encoder):
        return encode_image_tokens(encoder, images, present)


def embed_words(
    encoder: ReportEncoder,
    token_ids: Int[Tensor, "batch tokens"],
    token_mask: Bool[Tensor, "batch tokens"],
    word_index: Int[Tensor, "batch tokens"],
    *,
    last_layers: int,
) -> tuple[
    Float[Tensor, "batch dim"], Float[Tensor, "batch words dim"], Bool[Tensor, "batch words"]
]:
    """Reports, their words (CLS first) and the mask of the words they have.

    A token is the sum of its hidden states in the `last_layers` layers, a word the sum of its
    pieces; SEP is no word. Padded words are zeros; there are as many columns as tokens less one,
    whatever the reports say. A report is the mean of its real tokens, CLS and SEP among them. The
    authors divide the same sum by the padded length, which no cosine sees. Raises InputError when
    there are fewer layers.
    """
    tokens = encoder.embed_tokens(token_ids, token_mask, last_layers=last_layers)
    is_first = torch.arange(token_ids.shape[1], device=token_ids.device) == 0
    with_first = torch.where(word_index >= 0, word_index + 1, -1)
    with_first = torch.where(is_first & token_mask, 0, with_first)
    words, word_mask = sum_word_pieces(tokens, with_first, words=token_ids.shape[1] - 1)
    return mean_of_tokens(tokens, token_mask), words, word_mask


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
