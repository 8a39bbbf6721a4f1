"""A split as an encoder sees it, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from data_shards.records.policies import TextPolicy, select_sentences
from data_shards.records.study import Box, ImageRecord, StudyRecord
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.evaluation.geometry import (
    box_on_model_square,
    boxes_mask,
    image_extent,
    mask_on_model_square,
    region_map_on_pixels,
)
from distributed_pretrain.evaluation.grounding import (
    contrast_to_noise,
    pointing_hits,
)
from distributed_pretrain.methods.base import Method

Batches = Iterable[tuple[HostBatch, Batch]]
EncodeReports = Callable[[Sequence[Sequence[str]]], ReportTokens]
ReadMember = Callable[[StudyRecord, str], bytes]


@dataclass(frozen=True)
class EmbeddedStudies:
    """The real samples of a split, in file order, on the CPU.

    `reports` are the sentences the text policy keeps; `features` is the encoder's feature map
    and `pixels` the images as the model saw them: the middle `crop_fraction` (of its side) of
    their padded square.
    """

    records: tuple[StudyRecord, ...]
    reports: tuple[tuple[str, ...], ...]
    image: Float[Tensor, "samples dim"]
    report: Float[Tensor, "samples dim"]
    regions: Float[Tensor, "samples regions dim"]
    features: Float[Tensor, "samples channels rows columns"]
    pixels: Float[Tensor, "samples size size"]
    grid: tuple[int, int]
    crop_fraction: float = 1.0

    @property
    def image_size_px(self) -> int:
        """Side of the square images."""
        return self.pixels.shape[-1]


@torch.no_grad()
def embed_studies(
    method: Method, batches: Batches, policy: TextPolicy, *, crop_fraction: float = 1.0
) -> EmbeddedStudies:
    """Everything the evaluations need of a split, in one pass. Raises ValueError when empty."""
    method.eval()
    records: list[StudyRecord] = []
    parts: list[tuple[Tensor, ...]] = []
    grid = (0, 0)
    for host, batch in batches:
        images = method.embed_images(batch)
        reports = method.embed_reports(batch.report)
        tensors = (
            images.image,
            reports.report,
            images.regions,
            method.feature_map(batch.images),
            batch.images[:, 0],
        )
        parts.append(tuple(each[batch.sample_mask].float().cpu() for each in tensors))
        real = batch.sample_mask.tolist()
        records += [record for record, keep in zip(host.records, real, strict=True) if keep]
        grid = images.grid
    if not records:
        raise ValueError("no samples to evaluate")
    image, report, regions, features, pixels = (
        torch.cat(each) for each in zip(*parts, strict=True)
    )
    return EmbeddedStudies(
        records=tuple(records),
        reports=tuple(select_sentences(record.report, policy) for record in records),
        image=image,
        report=report,
        regions=regions,
        features=features,
        pixels=pixels,
        grid=grid,
        crop_fraction=crop_fraction,
    )


def evaluated_image(record: StudyRecord) -> int:
    """Position of the image an evaluation uses: the first frontal by id."""
    return record.frontal_images()[0]


@dataclass(frozen=True)
class Grounding:
    """Heat maps of phrases on their images, with how well they meet the boxes.

    `model_boxes` are (x, y, width, height) in pixels of the square the model saw.
    """

    samples: tuple[int, ...]
    phrases: tuple[str, ...]
    model_boxes: tuple[tuple[tuple[float, float, float, float], ...], ...]
    heat: Float[Tensor, "phrases size size"]
    contrast: Float[Tensor, " phrases"]
    hits: Bool[Tensor, " phrases"]


@torch.no_grad()
def ground_phrases(
    method: Method, studies: EmbeddedStudies, encode: EncodeReports, device: torch.device
) -> Grounding | None:
    """Every (image, phrase) with boxes, a phrase read as a report of one sentence.

    Several boxes of one phrase are a union. None when no study has a phrase with a box.
    """
    found: dict[tuple[int, str], list[Box]] = {}
    for sample, record in enumerate(studies.records):
        for box in record.boxes:
            if box.phrase and box.image == evaluated_image(record):
                found.setdefault((sample, box.phrase), []).append(box)
    if not found:
        return None
    method.eval()
    embedded = [
        method.embed_reports(encode([[phrase] for _, phrase in part]).to(device))
        .sentences[:, 0]
        .float()
        .cpu()
        for part in _parts(list(found), 256)
    ]
    samples = [sample for sample, _ in found]
    size, crop = studies.image_size_px, studies.crop_fraction
    phrases = torch.cat(embedded).to(device)
    regions = method.phrase_heat(phrases, studies.regions[samples].to(device)).float().cpu()
    heat = region_map_on_pixels(regions, studies.grid, size)
    inside = torch.stack(
        [
            boxes_mask(boxes, _image(studies, s), size, crop_fraction=crop)
            for s, boxes in zip(samples, found.values(), strict=True)
        ]
    )
    valid = torch.stack(
        [image_extent(_image(studies, s), size, crop_fraction=crop) for s in samples]
    )
    return Grounding(
        samples=tuple(samples),
        phrases=tuple(phrase for _, phrase in found),
        model_boxes=tuple(
            tuple(
                box_on_model_square(box, _image(studies, s), size, crop_fraction=crop)
                for box in boxes
            )
            for s, boxes in zip(samples, found.values(), strict=True)
        ),
        heat=heat,
        contrast=contrast_to_noise(heat, inside, valid),
        hits=pointing_hits(heat, inside, valid),
    )


def mask_classes(studies: EmbeddedStudies) -> tuple[str, ...]:
    """The categories that have a mask on any evaluated image, sorted."""
    return tuple(
        sorted(
            {
                mask.category
                for record in studies.records
                for mask in record.masks
                if mask.image == evaluated_image(record)
            }
        )
    )


def class_masks(
    studies: EmbeddedStudies, classes: Sequence[str], read: ReadMember
) -> Bool[Tensor, "samples classes size size"]:
    """Masks on the model's square, empty where a study has none of a class."""
    size = studies.image_size_px
    masks = torch.zeros(len(studies.records), len(classes), size, size, dtype=torch.bool)
    for sample, record in enumerate(studies.records):
        chosen = evaluated_image(record)
        for mask in record.masks:
            if mask.image == chosen and mask.category in classes:
                payload = np.frombuffer(read(record, mask.member), np.uint8).copy()
                stored = decode_image(torch.from_numpy(payload), ImageReadMode.GRAY)[0]
                channel = classes.index(mask.category)
                masks[sample, channel] |= mask_on_model_square(
                    stored, record.images[chosen], size, crop_fraction=studies.crop_fraction
                )
    return masks


def _image(studies: EmbeddedStudies, sample: int) -> ImageRecord:
    record = studies.records[sample]
    return record.images[evaluated_image(record)]


def _parts(items: list[tuple[int, str]], size: int) -> Iterable[list[tuple[int, str]]]:
    return (items[start : start + size] for start in range(0, len(items), size))
