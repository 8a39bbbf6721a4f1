"""Image encoders: one grey channel in, the last feature map of a trunk or its tokens out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from data_shards.errors import InputError
from distributed_pretrain.models.norms.groups import of_chosen
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.maps import exchange_batch_norms
from distributed_pretrain.models.trunks.base import ImageTokens, Trunk
from distributed_pretrain.models.trunks.patches import PATCHES, PatchTrunk
from distributed_pretrain.models.trunks.resnet import RESNETS, ResNetTrunk
from distributed_pretrain.models.trunks.timm import PREFIX as TIMM_PREFIX
from distributed_pretrain.models.trunks.timm import timm_trunk
from distributed_pretrain.models.trunks.torchvision import (
    TORCHVISION_FAMILIES,
    TORCHVISION_MODELS,
    TorchvisionTrunk,
)
from distributed_pretrain.models.trunks.vision_transformer import (
    VISION_TRANSFORMERS,
    VisionTransformerTrunk,
)
from distributed_pretrain.ranks import sum_over_ranks, world_size

# Which trunk each backbone is; `timm/...` besides, of which the library knows the names.
_TRUNKS: dict[str, Callable[..., Trunk]] = {
    **dict.fromkeys(RESNETS, ResNetTrunk),
    **dict.fromkeys(VISION_TRANSFORMERS, VisionTransformerTrunk),
    **dict.fromkeys(TORCHVISION_MODELS, TorchvisionTrunk),
    PATCHES: PatchTrunk,
}
_DEFAULTS = {"width": 1.0, "last_stride": 2, "last_stage": 4}
_OPTIONS = {**dict.fromkeys(RESNETS, tuple(_DEFAULTS)), PATCHES: ("width",)}

GreyImages: TypeAlias = Float[Tensor, "batch 1 height width"]
SampleMask: TypeAlias = Bool[Tensor, " batch"]


class ImageEncoder(nn.Module):
    """A trunk that sees a grey image as three equal channels; `channels` is its map's depth."""

    def __init__(self, backbone: Trunk) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = backbone.channels

    def compile(self, *_: Any, **options: Any) -> None:
        """Compile the trunk, with the options of `torch.compile`."""
        trunk: Any = self.backbone
        trunk.forward = torch.compile(trunk.forward, **options)
        trunk.tokens = torch.compile(trunk.tokens, **options)

    @property
    def region_channels(self) -> int:
        """The channels of the regions of `tokens`; InputError for a trunk without regions."""
        if self.backbone.region_channels is None:
            raise InputError(
                "image_encoder.backbone: regions are the third stage of a ResNet or the patches of "
                "a vision transformer: choose one of "
                f"{', '.join(RESNETS + VISION_TRANSFORMERS)}, or of timm"
            )
        return self.backbone.region_channels

    def forward(
        self, images: GreyImages, sample_mask: SampleMask | None = None
    ) -> Float[Tensor, "batch {self.channels} rows columns"]:
        """The last feature map; its cells are the image regions.

        Images whose `sample_mask` is False are not encoded, so they reach no batch statistic,
        and get a map of zeros. In training mode at least one image must be real, of this rank, or
        of all ranks together where the norms are synchronised.
        """
        real = real_rows(images, sample_mask)
        with real.groups:
            return real.in_batch(self.backbone(real.select(images).expand(-1, 3, -1, -1)))

    def tokens(self, images: GreyImages, sample_mask: SampleMask | None = None) -> ImageTokens:
        """The images as vectors, and their regions; as in `forward` where `sample_mask` is False.

        Of a transformer the class token and the patches, of a ResNet the last map and that of the
        third stage.
        """
        real = real_rows(images, sample_mask)
        with real.groups:
            pixels = real.select(images).expand(-1, 3, -1, -1)
            image_map, region_map, attention = self.backbone.tokens(pixels)
        return ImageTokens(
            real.in_batch(image_map),
            real.in_batch(region_map),
            None if attention is None else real.in_batch(attention),
        )

    def present_tokens(self, images: GreyImages, present: SampleMask) -> ImageTokens:
        """`tokens` of images that may all be absent, in training too.

        Where no rank has one, all tokens are zeros, every parameter gets a gradient of zeros, and
        the norms' statistics stay as they are. All ranks must call this together.
        """
        # A rank without any still joins the exchanges of synchronised norms, if others have some.
        own = int(present.sum())
        there_are_some = own > 0
        if world_size() > 1:
            of_all = sum_over_ranks(images.new_full((), own, dtype=torch.float32))
            # Whoever has some knows the answer: only a rank without any waits for the device.
            there_are_some = there_are_some or bool(of_all > 0)
        if there_are_some:
            return self.tokens(images, present)
        training = self.training
        try:
            return self.eval().tokens(images, present)
        finally:
            self.train(training)


def make_image_encoder(
    backbone: str = "resnet50",
    *,
    weights: str | None = None,
    width: float = 1.0,
    last_stride: Literal[1, 2] = 2,
    last_stage: Literal[3, 4] = 4,
    norm: Norm = "sync",
) -> ImageEncoder:
    """An image encoder by the name of its backbone, torchvision's or `timm/` and timm's.

    ResNets (18, 34, 50, 101, 152) take every option (see `ResNetTrunk`); ConvNeXt, DenseNet,
    EfficientNet, MobileNet, RegNet, ResNeXt, Swin, ViT and wide ResNets are torchvision's own,
    and those of timm its own, without options; `patches` is a `PatchTrunk` of any width. ConvNeXt,
    Swin and ViT normalise each position by itself: what "sync" and "group" promise holds as they
    are, and "local" and "frozen" are refused. `weights` are a name ("IMAGENET1K_V1", timm's
    "a1_in1k") or a file; None starts at random. Raises InputError for an unknown backbone, an
    option it does not have, or bad weights.
    """
    of_timm = backbone.startswith(TIMM_PREFIX)
    if not of_timm and backbone not in _TRUNKS:
        raise InputError(
            f"backbone={backbone!r}: not a torchvision model with a feature map: choose one of "
            f"{', '.join(RESNETS + VISION_TRANSFORMERS)}, a member of "
            f"{', '.join(TORCHVISION_FAMILIES)}, {PATCHES}, or {TIMM_PREFIX} and a model of timm"
        )
    given = {"width": width, "last_stride": last_stride, "last_stage": last_stage}
    options = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
    if refused := [name for name in options if name not in _OPTIONS.get(backbone, ())]:
        raise InputError(
            f"backbone={backbone}: {', '.join(refused)}: options of the ResNets: leave them out or "
            f"choose one of {', '.join(RESNETS)}"
        )
    trunk = timm_trunk(backbone) if of_timm else _TRUNKS[backbone](backbone, **options)
    if not exchange_batch_norms(trunk, norm) and norm in ("local", "frozen"):
        raise InputError(
            f"backbone={backbone}: has no batch norm for norm={norm} to change: leave it out"
        )
    if weights is not None:
        trunk.load_weights(backbone, weights)
    return ImageEncoder(trunk)


def receptive_field_px(
    encode: Callable[[Tensor], Tensor], image_size_px: int, like: Tensor | None = None
) -> int:
    """The side of the square of pixels that the middle cell of a map sees, found by its gradient.

    `encode` makes maps of images of the precision and on the device of `like`, its norms in
    evaluation mode. `image_size_px` where the cell sees the whole image.
    """
    images = torch.rand(1, 1, image_size_px, image_size_px)
    images = (images if like is None else images.to(like)).requires_grad_()
    cells = encode(images)
    middle = cells[0, :, cells.shape[2] // 2, cells.shape[3] // 2]
    # Squares: that of a channel which a ReLU has shut off tells nothing, of the others it does.
    (gradient,) = torch.autograd.grad(middle.square().sum(), images)
    seen = gradient[0, 0].abs() > 0
    return max(int(seen.any(dim=dim).sum()) for dim in (0, 1))


def check_upsampling(image_encoder: ImageEncoder, size_px: int | None) -> None:
    """Raise InputError where a vision transformer cannot cut `size_px` into whole patches."""
    patch_size = image_encoder.backbone.patch_size
    if size_px and patch_size and size_px % patch_size:
        fitting = round(size_px / patch_size) * patch_size
        raise InputError(
            f"method.upsample_px={size_px}: not cut into whole patches of {patch_size} px: "
            f"use {fitting}, or null"
        )


def upsampled(
    images: GreyImages, size_px: int | None
) -> Float[Tensor, "batch 1 new_height new_width"]:
    """The images stretched to `size_px` x `size_px`, bilinear; None leaves them as they are.

    More pixels make a finer grid of regions. The authors align the centres of the corner pixels;
    here the corners themselves are aligned, so that a region lies where it is looked for later.
    """
    if size_px is None:
        return images
    return F.interpolate(images, size=(size_px, size_px), mode="bilinear", align_corners=False)


class RealRows(NamedTuple):
    """The rows of a batch that are samples.

    `select` takes them out of values of the batch, `in_batch` puts what was made of them among
    zeros for the others, and within `groups` batch norms know that they see them alone.
    """

    select: Callable[[Tensor], Tensor]
    in_batch: Callable[[Tensor], Tensor]
    groups: AbstractContextManager[None]


def real_rows(images: GreyImages, sample_mask: SampleMask | None) -> RealRows:
    """Those of `images` whose `sample_mask` is True."""
    # Left out rather than masked, since the trunk's batch norms know nothing of masks. A mask on a
    # GPU makes the host wait for it.
    if sample_mask is None or bool(sample_mask.all()):
        return RealRows(_unchanged, _unchanged, nullcontext())
    count = len(images)
    rows = sample_mask.nonzero().squeeze(1).to(images.device, non_blocking=True)

    def in_batch(encoded: Tensor) -> Tensor:
        return encoded.new_zeros(count, *encoded.shape[1:]).index_put((rows,), encoded)

    return RealRows(lambda values: values.index_select(0, rows), in_batch, of_chosen(sample_mask))


def _unchanged(values: Tensor) -> Tensor:
    return values
