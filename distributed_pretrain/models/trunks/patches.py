"""A small trunk whose cells see a part of the image only, and by no padding where that lies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from distributed_pretrain.models.trunks.base import Images, ImageTokens, Maps, Trunk

PATCHES = "patches"


class PatchTrunk(Trunk):
    """Patches of 8 px every 4 px, then two convolutions over 3 x 3, the rest over single cells.

    A cell of 8 px sees 32 px (a bag of local features, as BagNet: Brendel and Bethge, ICLR 2019),
    so that what it says of the image is there. Reflected padding tells no cell that it is on the
    border. For small images learnt from scratch; 0.2 M parameters at width 1, of 128 channels.
    """

    def __init__(self, _: str = PATCHES, *, width: float = 1.0) -> None:
        super().__init__()
        first, middle, last = (max(8, 8 * round(width * base / 8)) for base in (48, 96, 128))
        self.patches = _Convolution(3, first, kernel_px=8, stride=4, padding=2)
        self.cells = _Convolution(first, middle, kernel_px=3, stride=2, padding=1)
        self.around = _Residual(middle, kernel_px=3)
        self.within = _Residual(middle, kernel_px=1)
        self.last = _Convolution(middle, last, kernel_px=1)
        self.channels = self.region_channels = last

    def forward(self, images: Images) -> Maps:
        """The map of cells, at 1/8 of the images' size."""
        cells: Tensor = F.relu(self.cells(F.relu(self.patches(images))))
        return F.relu(self.last(self.within(self.around(cells))))

    def tokens(self, images: Images) -> ImageTokens:
        """The map as the image (its mean) and as the regions."""
        cells = self(images)
        return ImageTokens(cells, cells)


class _Convolution(nn.Sequential):
    def __init__(
        self, channels: int, out: int, *, kernel_px: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(
            nn.Conv2d(
                channels, out, kernel_px, stride, padding, bias=False, padding_mode="reflect"
            ),
            nn.BatchNorm2d(out),
        )


class _Residual(nn.Module):
    def __init__(self, channels: int, *, kernel_px: int) -> None:
        super().__init__()
        self.spatial = _Convolution(channels, channels, kernel_px=kernel_px, padding=kernel_px // 2)
        self.mix = _Convolution(channels, channels, kernel_px=1)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(maps + self.mix(F.relu(self.spatial(maps))))
