"""Batches on the host: images still to be resized, the rest ready; in one block where asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from distributed_pretrain.batch import Batch, Lateral, SampleRows, SecondView, TensorTree
from distributed_pretrain.byte_block import Block, Place, Placing
from distributed_pretrain.data.augmentation_parameters import AugmentationDraw
from distributed_pretrain.data.labels import wanted_labels
from distributed_pretrain.data.masks_and_boxes import stack_boxes
from distributed_pretrain.data.sample import LoadedSample, LoadedView
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.tokenization import ReportTokenizer


@dataclass(frozen=True)
class HostImages(SampleRows):
    """Decoded images to be resized, and augmented if they are told how.

    `pixels` holds of each image the window to be resized (a crop, or the padded square) in the
    upper left corner of a zero canvas; `window_sizes_px` are the windows' heights and widths.
    `augmentation` are the numbers of each sample's `AugmentationDraw` by name, float32; None for
    images that are only resized.
    """

    pixels: UInt8[Tensor, "batch 1 height width"]
    window_sizes_px: Int[Tensor, "batch 2"]
    augmentation: dict[str, Tensor] | None

    @classmethod
    def stack(cls, views: Sequence[LoadedView]) -> Self:
        """The images of one or more samples."""
        sizes = np.array([(view.window.height, view.window.width) for view in views])
        canvas = np.zeros((len(views), 1, *sizes.max(axis=0)), dtype=np.uint8)
        for view, place in zip(views, canvas, strict=True):
            view.paste_into(place[0])
        draws = [view.draw for view in views if view.draw is not None]
        numbers = [field.name for field in fields(AugmentationDraw) if field.name != "window"]
        drawn = {name: torch.tensor([getattr(draw, name) for draw in draws]) for name in numbers}
        return cls(
            pixels=torch.from_numpy(canvas),
            window_sizes_px=torch.from_numpy(sizes),
            augmentation=drawn if draws else None,
        )


@dataclass(frozen=True)
class HostBatch(TensorTree):
    """A batch on the host, all but the pixels of its images, which are to be resized.

    `lateral` has a row only for each study that has one, `lateral_rows` which those are; both are
    None where that is none of them. All tensors are views of `block`, where there is one.
    """

    batch: Batch
    frontal: HostImages
    lateral: HostImages | None = None
    lateral_rows: Int[Tensor, " laterals"] | None = None
    second_view: HostImages | None = None
    block: Block | None = None

    def places(self) -> tuple[HostBatch, int]:
        """The batch with a `Place` instead of each tensor, and how many bytes a block has."""
        placing = Placing()
        return replace(self, block=None).map_tensors(placing.place), placing.size_bytes

    def in_block(self, block: Block) -> HostBatch:
        """A copy of the batch in `block`, at its `places`."""
        placing = Placing()
        copied = replace(self, block=None).map_tensors(
            lambda tensor: placing.place(tensor).view(block).copy_(tensor)
        )
        return replace(copied, block=block)

    def pinned(self) -> HostBatch:
        """A copy of the batch in one block of page-locked memory, to which a GPU has access."""
        return self.in_block(torch.empty(self.places()[1], dtype=torch.uint8, pin_memory=True))

    def to(self, device: torch.device) -> HostBatch:
        """The batch on `device`; of a block a copy, made at once, also where it lies there."""
        if self.block is None:
            return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=True))
        places, _ = self.places()
        return batch_at(places, self.block.to(device, non_blocking=True, copy=True))


def batch_at(places: HostBatch, block: Block) -> HostBatch:
    """The batch that lies in `block` at these `places`."""
    return replace(places.map_values(lambda place: place.view(block), (Place,)), block=block)


def collate(
    samples: Sequence[LoadedSample],
    *,
    tokenizer: ReportTokenizer,
    config: DataConfig,
    epoch: int = 0,
    samples_consumed: int = 0,
    with_records: bool = True,
) -> HostBatch:
    """The batch of `samples`, with what the config asks for."""
    frontals = [sample.frontal for sample in samples]
    laterals = [sample.lateral for sample in samples if sample.lateral is not None]
    seconds = [sample.second_view for sample in samples if sample.second_view is not None]
    stack = HostImages.stack
    no_pixels = torch.empty(len(samples), 1, 0, 0)
    lateral = lateral_rows = second_view = labels = masks = boxes = None
    drawn = [sample.drawn for sample in samples if sample.drawn is not None]
    if config.views == "frontal_lateral":
        present = tuple(each.lateral is not None for each in samples)
        lateral = Lateral(no_pixels, torch.tensor(present), present)
        lateral_rows = lateral.mask.nonzero()[:, 0] if laterals else None
    if seconds:
        pairs = zip(frontals, seconds, strict=True)
        maps = torch.tensor(np.array([[view.to_image() for view in pair] for pair in pairs]))
        second_view = SecondView(no_pixels, maps.to(torch.float32))
    if config.labels:
        labels = torch.tensor([wanted_labels(each.record, config) for each in samples])
    if config.masks:
        masks = torch.stack([each.masks for each in drawn])
    if config.boxes:
        boxes = stack_boxes(drawn)
    batch = Batch(
        keys=tuple(sample.record.key for sample in samples),
        images=no_pixels,
        report=tokenizer.encode([sample.sentences for sample in samples]),
        sample_mask=torch.tensor([sample.real for sample in samples]),
        lateral=lateral,
        second_view=second_view,
        labels=labels,
        masks=masks,
        boxes=boxes,
        records=tuple(sample.record for sample in samples) if with_records else (),
        epoch=epoch,
        samples_consumed=samples_consumed,
        replaced=sum(sample.replaced for sample in samples),
        real=tuple(sample.real for sample in samples),
    )
    return HostBatch(
        batch,
        frontal=stack(frontals),
        lateral=stack(laterals) if laterals else None,
        lateral_rows=lateral_rows,
        second_view=stack(seconds) if seconds else None,
    )
