"""One study of an archive turned into the members of one shard sample."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data_shards.building.settings import ShardsConfig
from data_shards.errors import InputError
from data_shards.images.decode import BadImageError
from data_shards.images.resize import StoredImage, convert_image, convert_mask
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import (
    Box,
    ImageRecord,
    MaskRecord,
    Sample,
    SourceImage,
    Split,
    StudyRecord,
)


@dataclass(frozen=True, slots=True)
class ConvertedStudy:
    """A study ready to be written; `members` maps `json`, `image0.jpg` ... to bytes."""

    record: StudyRecord
    members: dict[str, bytes]
    images: tuple[StoredImage, ...]
    dropped_images: tuple[DroppedSample, ...]


def convert_study(
    sample: Sample, config: ShardsConfig, *, key: str, split: Split
) -> ConvertedStudy | DroppedSample:
    """The stored form of `sample`, or why it is left out: no image of it can be read.

    Boxes and masks follow their image into its stored size, and go when it goes. Raises
    BadImageError where `bad_images` is to stop, and InputError for boxes and masks that name an
    image the study does not have.
    """
    _refuse_strays(sample, key)
    converted, dropped = _convert_images(sample.images, config, key)
    if not converted:
        return DroppedSample(key=key, reason="no readable image" if dropped else "no image")
    position_of = {original: position for position, original in enumerate(converted)}
    images = tuple(converted.values())
    masks, mask_members = _convert_masks(sample, position_of, images, key)
    record = StudyRecord(
        key=key,
        patient_id=sample.patient_id,
        study_id=sample.study_id,
        split=split,
        source=config.source_name,
        licence=config.source.licence,
        images=tuple(
            image_record(sample.images[original], position, images[position])
            for original, position in position_of.items()
        ),
        report=sample.report,
        labels=sample.labels,
        boxes=tuple(
            _scaled(box, position_of[box.image], images[position_of[box.image]])
            for box in sample.boxes
            if box.image in position_of
        ),
        masks=masks,
    )
    return packed(record, images, masks=mask_members, dropped_images=dropped)


def image_record(image: SourceImage, position: int, stored: StoredImage) -> ImageRecord:
    """The record of a study's image number `position`."""
    return ImageRecord(
        id=image.id,
        view=image.view,
        member=f"image{position}.jpg",
        width=stored.width,
        height=stored.height,
        original_width=stored.original_width,
        original_height=stored.original_height,
    )


def packed(
    record: StudyRecord,
    images: Sequence[StoredImage],
    *,
    masks: Mapping[str, bytes] | None = None,
    dropped_images: tuple[DroppedSample, ...] = (),
) -> ConvertedStudy:
    """A record with its images, in its order, and its masks by member, as files of a tar."""
    described = json.dumps(record.to_json(), ensure_ascii=False, sort_keys=True)
    members = {
        stored.member: image.jpeg for stored, image in zip(record.images, images, strict=True)
    }
    members |= {**(masks or {}), "json": described.encode()}
    return ConvertedStudy(record, members, tuple(images), dropped_images)


def _refuse_strays(sample: Sample, key: str) -> None:
    for what, image in [
        *(("box", box.image) for box in sample.boxes),
        *(("mask", mask.image) for mask in sample.masks),
    ]:
        if not 0 <= image < len(sample.images):
            raise InputError(
                f"{key}: a {what} names image {image}, but the study has {len(sample.images)}: "
                "correct the annotation"
            )


def _convert_images(
    images: Sequence[SourceImage], config: ShardsConfig, key: str
) -> tuple[dict[int, StoredImage], tuple[DroppedSample, ...]]:
    converted: dict[int, StoredImage] = {}
    dropped: list[DroppedSample] = []
    for position, image in enumerate(images):
        try:
            converted[position] = convert_image(
                image.path,
                longest_side_px=config.longest_side_px,
                jpeg_quality=config.jpeg_quality,
            )
        except BadImageError as error:
            if config.bad_images == "stop":
                raise
            dropped.append(DroppedSample(key=f"{key}/{image.id}", reason=error.reason))
    return converted, tuple(dropped)


def _convert_masks(
    sample: Sample, position_of: dict[int, int], images: Sequence[StoredImage], key: str
) -> tuple[tuple[MaskRecord, ...], dict[str, bytes]]:
    records: list[MaskRecord] = []
    members: dict[str, bytes] = {}
    for mask in sample.masks:
        position = position_of.get(mask.image)
        if position is None:
            continue
        category = re.sub(r"[^A-Za-z0-9-]+", "_", mask.category)
        suffix = f"_image{position}" if position else ""
        member = f"mask_{category}{suffix}.png"
        if member in members:
            raise InputError(
                f"{key}: two masks of {mask.category!r} for image {mask.image}: unite them in one"
            )
        image = images[position]
        members[member] = convert_mask(
            mask.path,
            original=(image.original_width, image.original_height),
            stored=(image.width, image.height),
        )
        records.append(MaskRecord(image=position, category=mask.category, member=member))
    return tuple(records), members


def _scaled(box: Box, position: int, image: StoredImage) -> Box:
    across = image.width / image.original_width
    down = image.height / image.original_height
    return replace(
        box,
        image=position,
        x=box.x * across,
        y=box.y * down,
        width=box.width * across,
        height=box.height * down,
    )
