"""LoVT's YOLOv3: predictions at three scales of an encoder's last stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distributed_pretrain.downstream.heads.pyramid import (
    Needs,
    PyramidHead,
    at_least,
    pyramid_of,
    refuse_image_size,
)
from distributed_pretrain.models.image_encoder import ImageEncoder

ANCHORS_A_SCALE = 3
# Of the six blocks of a scale, alternately 1x1 to the narrow and 3x3 to the wide width.
_BLOCKS = 6
# After which of them the branch to the next scale leaves.
_BRANCH = 5


class YoloV3(PyramidHead):
    """On conv5, conv4 and conv3, coarsest first, `predictions` numbers for each anchor and cell.

    A scale is six blocks of convolution, batch norm and LeakyReLU (0.1), widths (512, 1024), (256,
    512) and (128, 256) on a ResNet-50 (a quarter and half of its stage's channels), then a 1x1
    convolution with bias. After the fifth block a branch goes to the next scale: a 1x1 block of
    half the width, to the nearest cells of the finer map, beside which it is laid.
    """

    needs = Needs(stages=(2, 3, 4))

    def __init__(
        self, image_encoder: ImageEncoder, predictions: int, *, image_size_px: int
    ) -> None:
        super().__init__()
        stages = pyramid_of(image_encoder, "yolov3")
        refuse_image_size(image_size_px, stages)
        scales = stages[:1:-1]
        self.strides = tuple(stage.stride for stage in scales)
        self.scales, self.predictors = nn.ModuleList(), nn.ModuleList()
        self.branches = nn.ModuleList()
        branch = 0
        for number, stage in enumerate(scales):
            narrow, wide = at_least(stage.channels // 4), at_least(stage.channels // 2)
            if number:
                self.branches.append(_Block(2 * branch, branch, kernel=1))
            self.scales.append(_scale(branch + stage.channels, narrow, wide))
            self.predictors.append(nn.Conv2d(wide, ANCHORS_A_SCALE * predictions, kernel_size=1))
            branch = narrow // 2

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(batch, 3 * predictions, rows, columns) of each scale, coarsest first."""
        found: list[Tensor] = []
        below: Tensor | None = None
        for number, stage in enumerate(reversed(maps)):
            inputs = stage
            if below is not None:
                finer = F.interpolate(self.branches[number - 1](below), size=stage.shape[-2:])
                inputs = torch.cat([finer, stage], dim=1)
            blocks = self.scales[number]
            assert isinstance(blocks, nn.Sequential)
            below = blocks[:_BRANCH](inputs)
            found.append(self.predictors[number](blocks[_BRANCH:](below)))
        return tuple(found)


class _Block(nn.Sequential):
    def __init__(self, channels: int, out: int, *, kernel: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(0.1, inplace=True),
        )


def _scale(channels: int, narrow: int, wide: int) -> nn.Sequential:
    sides = [(1, narrow) if number % 2 == 0 else (3, wide) for number in range(_BLOCKS)]
    inputs = [channels, *(out for _, out in sides[:-1])]
    return nn.Sequential(
        *(
            _Block(before, out, kernel=kernel)
            for before, (kernel, out) in zip(inputs, sides, strict=True)
        )
    )
