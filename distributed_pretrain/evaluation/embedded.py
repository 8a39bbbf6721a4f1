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
from distributed_pretrain.batch import Batch, ReportTokens, join_rows
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.measures.geometry import (
    box_on_model_square,
    boxes_mask,
    image_extent,
    mask_on_model_square,
    region_map_on_pixels,
)
from distributed_pretrain.measures.grounding import (
    contrast_to_noise,
    pointing_hits,
)
from distributed_pretrain.measures.similarity import similarity_matrix
from distributed_pretrain.methods.objective import (
    ImageEmbeddings,
    JointSpace,
    Method,
    ReportEmbeddings,
)

Batches = Iterable[tuple[HostBatch, Batch]]
EncodeReports = Callable[[Sequence[Sequence[str]]], ReportTokens]
# Bounds the memory of their images.
_PHRASES_AT_A_TIME = 64

ReadMember = Callable[[StudyRecord, str], bytes]


@dataclass(frozen=True)
class EmbeddedStudies:
    """The real samples of a split, in file order, on the CPU.

    `reports` are the sentences the text policy keeps; `joint` are the embeddings of a method with a
    joint space, `features` is the encoder's feature map and `pixels` the images as the model saw
    them: the middle `crop_fraction` (of its side) of their padded square.
    """

    records: tuple[StudyRecord, ...]
    reports: tuple[tuple[str, ...], ...]
    joint: JointEmbeddings | None
    features: Float[Tensor, "samples channels rows columns"]
    pixels: Float[Tensor, "samples size size"]
    crop_fraction: float = 1.0

    @property
    def image_size_px(self) -> int:
        """Side of the square images."""
        return self.pixels.shape[-1]


@dataclass(frozen=True)
class JointEmbeddings:
    """Images and reports of a split; row i of both is sample i."""

    images: ImageEmbeddings
    reports: ReportEmbeddings


@torch.no_grad()
def embed_studies(
    method: Method,
    batches: Batches,
    policy: TextPolicy,
    *,
    joint: bool = True,
    crop_fraction: float = 1.0,
) -> EmbeddedStudies:
    """Everything the evaluations need of a split, in one pass. Raises ValueError when empty.

    Without `joint` only what the image encoder gives.
    """
    method.eval()
    records: list[StudyRecord] = []
    features: list[Tensor] = []
    pixels: list[Tensor] = []
    images: list[ImageEmbeddings] = []
    reports: list[ReportEmbeddings] = []
    for host, batch in batches:
        mask = batch.sample_mask

        def real(values: Tensor, mask: Tensor = mask) -> Tensor:
            kept = values[mask]
            return (kept.float() if kept.is_floating_point() else kept).cpu()

        features.append(real(method.feature_map(batch.images)))
        pixels.append(real(batch.images[:, 0]))
        if joint and isinstance(method, JointSpace):
            images.append(method.embed_images(batch).map_tensors(real))
            reports.append(method.embed_reports(batch.report).map_tensors(real))
        keep = mask.tolist()
        records += [record for record, kept in zip(host.records, keep, strict=True) if kept]
    if not records:
        raise ValueError("no samples to evaluate")
    return EmbeddedStudies(
        records=tuple(records),
        reports=tuple(select_sentences(record.report, policy) for record in records),
        joint=JointEmbeddings(join_rows(images), join_rows(reports)) if images else None,
        features=torch.cat(features),
        pixels=torch.cat(pixels),
        crop_fraction=crop_fraction,
    )


@torch.no_grad()
def study_similarity(
    method: JointSpace, joint: JointEmbeddings, device: torch.device, *, batch_size: int = 64
) -> Float[Tensor, "samples samples"]:
    """The similarity of every image (row) to every report, on the CPU."""
    samples = len(joint.images.image)
    starts = range(0, samples, batch_size)
    return similarity_matrix(
        method,
        (joint.images.rows(slice(start, start + batch_size)) for start in starts),
        [joint.reports],
        (torch.ones(min(batch_size, samples - start), dtype=torch.bool) for start in starts),
        device=device,
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

    Several boxes of one phrase are a union. None when no study has a phrase with a box, or the
    method no joint space.
    """
    found: dict[tuple[int, str], list[Box]] = {}
    for sample, record in enumerate(studies.records):
        for box in record.boxes:
            if box.phrase and box.image == evaluated_image(record):
                found.setdefault((sample, box.phrase), []).append(box)
    if not found or studies.joint is None or not isinstance(method, JointSpace):
        return None
    method.eval()
    samples = [sample for sample, _ in found]
    phrases = [phrase for _, phrase in found]
    size, crop = studies.image_size_px, studies.crop_fraction
    heats = []
    for start in range(0, len(phrases), _PHRASES_AT_A_TIME):
        part = slice(start, start + _PHRASES_AT_A_TIME)
        embedded = method.embed_reports(encode([[each] for each in phrases[part]]).to(device))
        images = _chosen(studies.joint.images, samples[part]).to(device)
        heats.append(method.phrase_heat(embedded, images).float().cpu())
    regions = torch.cat(heats)
    heat = region_map_on_pixels(regions.flatten(1), (regions.shape[1], regions.shape[2]), size)
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
        phrases=tuple(phrases),
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


def _chosen(images: ImageEmbeddings, samples: Sequence[int]) -> ImageEmbeddings:
    return images.map_tensors(lambda rows: rows[list(samples)])


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
