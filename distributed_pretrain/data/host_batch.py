"""What a loader hands over: one rank's share of a global batch, still on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from distributed_pretrain.batch import Batch, Lateral, SampleRows, SecondView
from distributed_pretrain.data.augmentation_parameters import AugmentationDraw
from distributed_pretrain.data.sample import LoadedSample, LoadedView
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import label_values
from distributed_pretrain.data.tokenization import ReportTokenizer


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
        names = [field.name for field in fields(cls)]
        return cls(*(torch.tensor([getattr(draw, name) for draw in draws]) for name in names))


@dataclass(frozen=True)
class HostImages(SampleRows):
    """Decoded images to be resized, and augmented if they are told how.

    `pixels` holds of each image the window to be resized (a crop, or the padded square) in the
    upper left corner of a zero canvas; `window_sizes_px` are the windows' heights and widths.
    `augmentation` is None for images that are only resized.
    """

    pixels: UInt8[Tensor, "batch 1 height width"]
    window_sizes_px: Int[Tensor, "batch 2"]
    augmentation: AugmentationParameters | None

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
    """A batch on the host, all but the pixels of its images, which are to be resized.

    `lateral` has a row only for each study that has one, and is None where that is none of them.
    """

    batch: Batch
    frontal: HostImages
    lateral: HostImages | None = None
    second_view: HostImages | None = None


def collate(
    samples: Sequence[LoadedSample],
    *,
    tokenizer: ReportTokenizer,
    config: DataConfig,
    pin_memory: bool = False,
    epoch: int = 0,
    samples_consumed: int = 0,
) -> HostBatch:
    """The batch of `samples`, with what the config asks for."""
    frontals = [sample.frontal for sample in samples]
    laterals = [sample.lateral for sample in samples if sample.lateral is not None]
    seconds = [sample.second_view for sample in samples if sample.second_view is not None]
    stack = partial(HostImages.stack, pin_memory=pin_memory)
    no_pixels = torch.empty(len(samples), 1, 0, 0)
    lateral = second_view = labels = None
    if config.views == "frontal_lateral":
        has_lateral = torch.tensor([sample.lateral is not None for sample in samples])
        lateral = Lateral(no_pixels, has_lateral)
    if seconds:
        pairs = zip(frontals, seconds, strict=True)
        maps = torch.tensor(np.array([[view.to_image() for view in pair] for pair in pairs]))
        second_view = SecondView(no_pixels, maps.to(torch.float32))
    if config.labels:
        labels = torch.tensor([label_values(each.record, config.labels) for each in samples])
    batch = Batch(
        keys=tuple(sample.record.key for sample in samples),
        images=no_pixels,
        report=tokenizer.encode([sample.sentences for sample in samples]),
        sample_mask=torch.tensor([sample.real for sample in samples]),
        lateral=lateral,
        second_view=second_view,
        labels=labels,
        records=tuple(sample.record for sample in samples),
        epoch=epoch,
        samples_consumed=samples_consumed,
        replaced=sum(sample.replaced for sample in samples),
    )
    return HostBatch(
        batch,
        frontal=stack(frontals),
        lateral=stack(laterals) if laterals else None,
        second_view=stack(seconds) if seconds else None,
    )
