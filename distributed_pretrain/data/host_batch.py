"""What a loader hands over: one rank's share of a global batch, still on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.data.draws import AugmentationDraw


@dataclass(frozen=True)
class AugmentationParameters:
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

    def to(self, device: torch.device) -> Self:
        """The same parameters on `device`."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return type(self)(**moved)

    def rows(self, chosen: slice) -> Self:
        """The parameters of some of the samples."""
        return type(self)(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


@dataclass(frozen=True)
class HostBatch:
    """Decoded images, tokens and records of one step.

    `pixels` holds of each image the window to be resized (a crop, or the padded square) in the
    upper left corner of a zero canvas; `window_sizes_px` are the windows' heights and widths.
    `augmentation` is None for images that are only padded and resized. `sample_mask` is False for
    rows that fill up an evaluation's last batch or stand in for unreadable samples of it;
    `replaced` counts the unreadable samples of this rank's share.

    `epoch` is the one the batch belongs to, `samples_consumed` the global count after it.
    """

    keys: tuple[str, ...]
    records: tuple[StudyRecord, ...]
    pixels: UInt8[Tensor, "batch 1 height width"]
    window_sizes_px: Int[Tensor, "batch 2"]
    augmentation: AugmentationParameters | None
    report: ReportTokens
    sample_mask: Bool[Tensor, " batch"]
    epoch: int
    samples_consumed: int
    replaced: int
