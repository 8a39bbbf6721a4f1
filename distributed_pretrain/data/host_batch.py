"""What a loader hands over: one rank's share of a global batch, still on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import ReportTokens, SampleRows
from distributed_pretrain.data.augmentation_parameters import AugmentationDraw
from distributed_pretrain.data.sample import LoadedView


@dataclass(frozen=True)
class AugmentationParameters(SampleRows):
    """Per-sample parameters of the augmentation (`AugmentationDraw`), float32."""

    flip: Bool[Tensor, " batch"]
    rotation_degrees: Float[Tensor, " batch"]
    translation_fraction: Float[Tensor, "batch xy=2"]
    scale: Float[Tensor, " batch"]
    brightness: Float[Tensor, " batch"]
    contrast: Float[Tensor, " batch"]
    blur_sigma_px: Float[Tensor, " batch"]

    @classmethod
    def stack(cls, draws: Sequence[AugmentationDraw]) -> Self:
        """The parameters of a batch from those of its samples (windows apart)."""
        return cls(
            flip=torch.tensor([draw.flip for draw in draws]),
            rotation_degrees=torch.tensor([draw.rotation_degrees for draw in draws]),
            translation_fraction=torch.tensor(
                [(draw.translation_x, draw.translation_y) for draw in draws]
            ),
            scale=torch.tensor([draw.scale for draw in draws]),
            brightness=torch.tensor([draw.brightness for draw in draws]),
            contrast=torch.tensor([draw.contrast for draw in draws]),
            blur_sigma_px=torch.tensor([draw.blur_sigma_px for draw in draws]),
        )


@dataclass(frozen=True)
class HostImages:
    """Decoded images to be resized, and augmented if they are told how.

    `pixels` holds of each image the window to be resized (a crop, or the padded square) in the
    upper left corner of a zero canvas; `window_sizes_px` are the windows' heights and widths.
    `augmentation` is None for images that are only resized.
    """

    pixels: UInt8[Tensor, "batch 1 height width"]
    window_sizes_px: Int[Tensor, "batch 2"]
    augmentation: AugmentationParameters | None

    def __len__(self) -> int:
        return len(self.pixels)

    @classmethod
    def stack(cls, views: Sequence[LoadedView], *, pin_memory: bool = False) -> Self:
        """The images of one or more samples."""
        sizes = np.array([(view.window.height, view.window.width) for view in views])
        canvas = np.zeros((len(views), 1, *sizes.max(axis=0)), dtype=np.uint8)
        for view, place in zip(views, canvas, strict=True):
            view.paste_into(place[0])
        pixels = torch.from_numpy(canvas)
        draws = [view.draw for view in views if view.draw is not None]
        return cls(
            pixels=pixels.pin_memory() if pin_memory else pixels,
            window_sizes_px=torch.from_numpy(sizes),
            augmentation=AugmentationParameters.stack(draws) if draws else None,
        )


@dataclass(frozen=True)
class HostBatch:
    """Decoded images, tokens and records of one step.

    `sample_mask` is False for rows that fill up an evaluation's last batch or stand in for
    unreadable samples of it; `replaced` counts the unreadable samples of this rank's share.

    `epoch` is the one the batch belongs to, `samples_consumed` the global count after it.

    What a profile did not ask for is None, see `Batch`. `lateral` has a row only for each study
    that `lateral_mask` says has one, and is None too where that is none of them.
    """

    keys: tuple[str, ...]
    records: tuple[StudyRecord, ...]
    frontal: HostImages
    report: ReportTokens
    sample_mask: Bool[Tensor, " batch"]
    epoch: int
    samples_consumed: int
    replaced: int
    lateral: HostImages | None = None
    lateral_mask: Bool[Tensor, " batch"] | None = None
    second_view: HostImages | None = None
    view_to_image: Float[Tensor, "batch views=2 2 3"] | None = None
    labels: Float[Tensor, "batch classes"] | None = None
