"""ResNet trunks of any width, from torchvision's blocks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from distributed_pretrain.models.trunks.base import Images, ImageTokens, Maps, Stage, Trunk

_BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
RESNETS = tuple(_BLOCKS)


class ResNetTrunk(Trunk):
    """torchvision's ResNet up to its last feature map; regions are the cells of the third stage.

    Parameters have torchvision's names, and at width 1 and `last_stride` 2 the function is the
    same, so that weights go both ways. `width` scales the channels of every stage (rounded to a
    multiple of 8); `last_stride` 1 doubles the last map's rows and columns; `last_stage` 3 leaves
    the fourth out, whose cells see all of a small image.
    """

    def __init__(
        self,
        name: str,
        *,
        width: float = 1.0,
        last_stride: Literal[1, 2] = 2,
        last_stage: Literal[3, 4] = 4,
    ) -> None:
        super().__init__()
        block, depths = _BLOCKS[name]
        planes = [max(8, 8 * round(width * base / 8)) for base in (64, 128, 256, 512)]
        self.conv1 = nn.Conv2d(3, planes[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.channels = planes[0]
        pyramid = [Stage(planes[0], 2)]
        self.layer1 = self._stage(block, planes[0], depths[0], 1)
        pyramid.append(Stage(self.channels, 4))
        self.layer2 = self._stage(block, planes[1], depths[1], 2)
        pyramid.append(Stage(self.channels, 8))
        self.layer3 = self._stage(block, planes[2], depths[2], 2)
        pyramid.append(Stage(self.channels, 16))
        self.region_channels = self.channels
        self.layer4: nn.Module = nn.Identity()
        if last_stage == 4:
            self.layer4 = self._stage(block, planes[3], depths[3], last_stride)
            pyramid.append(Stage(self.channels, 16 * last_stride))
        self.pyramid = tuple(pyramid)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Images) -> Maps:
        """The map of the last stage, at 1/32 of the images' size (1/16 with either option)."""
        last: Tensor = self.layer4(self._third_stage(images))
        return last

    def tokens(self, images: Images) -> ImageTokens:
        """The last map, and that of the third stage, at 1/16: 19 x 19 regions for 299 px."""
        third = self._third_stage(images)
        return ImageTokens(self.layer4(third), third)

    def stages(self, images: Images) -> tuple[Maps, ...]:
        """conv1 after its norm and activation, then each stage: conv1 to conv5 of the paper."""
        maps = [self.relu(self.bn1(self.conv1(images)))]
        below = self.maxpool(maps[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4)[: len(self.pyramid) - 1]:
            below = layer(below)
            maps.append(below)
        return tuple(maps)

    def _third_stage(self, images: Tensor) -> Tensor:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        third: Tensor = self.layer3(self.layer2(self.layer1(stem)))
        return third

    def _stage(
        self, block: type[BasicBlock | Bottleneck], planes: int, depth: int, stride: int
    ) -> nn.Sequential:
        out_channels = planes * block.expansion
        shortcut = None
        if stride != 1 or self.channels != out_channels:
            shortcut = nn.Sequential(
                nn.Conv2d(self.channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        first = block(self.channels, planes, stride, shortcut)
        self.channels = out_channels
        rest = (block(out_channels, planes) for _ in range(depth - 1))
        return nn.Sequential(first, *rest)
