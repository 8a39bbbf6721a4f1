"""One study of an archive turned into the members of one shard sample."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from data_shards.building.hashed_ids import naming
from data_shards.building.settings import ShardsConfig
from data_shards.errors import MISSING_IMAGE, InputError
from data_shards.images.content import mask_notes
from data_shards.images.conversion import convert_image, convert_mask, united_mask
from data_shards.images.layout import Size
from data_shards.images.notes import Note
from data_shards.images.refusals import BadImageError
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
from data_shards.sources.base import BoxesOutside
from data_shards.sources.image_paths import told_with_its_row

# How far a sound box may reach out of its image: tables round, and count from 0 or 1.
ROUNDING_PX = 1.0


@dataclass(frozen=True, slots=True)
class ConvertedStudy:
    """A study ready to be written; `members` maps `image0.jpg` ... and `json` to bytes."""

    record: StudyRecord
    members: dict[str, bytes]
    dropped_images: tuple[DroppedSample, ...] = ()
    # By member: what there is to say of an image's file.
    notes: tuple[tuple[str, Note], ...] = ()


def convert_study(
    sample: Sample, config: ShardsConfig, *, key: str, split: Split
) -> ConvertedStudy | tuple[DroppedSample, ...]:
    """The stored form of `sample`, or why it is left out: no image, or what is wrong with each.

    Boxes and masks follow their image into its stored size, and go when it goes; an image goes
    with a mask that is missing. Raises BadImageError where `bad_images` is to stop, and InputError
    for boxes and masks that name an image the study does not have, boxes beside their image, and an
    image of another size than its table says.
    """
    _refuse_strays(sample, key)
    as_stored = config.source.orientation == "as_stored"
    name = naming(config.hash_ids)
    members: dict[str, bytes] = {}
    # By number in the sample, which is another than in the record when images were dropped.
    images: dict[int, ImageRecord] = {}
    dropped: list[DroppedSample] = []
    notes: list[tuple[str, Note]] = []
    for number, image in enumerate(sample.images):
        try:
            converted = convert_image(
                image.path,
                longest_side_px=config.longest_side_px,
                jpeg_quality=config.jpeg_quality,
                depth=config.source.bits,
                as_stored=as_stored,
            )
        except BadImageError as error:
            if not config.drops(error.reason):
                raise told_with_its_row(error, image) from error
            dropped.append(DroppedSample(key=f"{key}/{name(image.id)}", reason=error.reason))
            continue
        _refuse_another_size(image, converted.original_size)
        if _lacks_a_mask(sample, number, config):
            dropped.append(DroppedSample(key=f"{key}/{name(image.id)}", reason="missing mask"))
            continue
        member = f"image{len(images)}.jpg"
        members[member] = converted.jpeg
        sizes = (*converted.size, *converted.original_size)
        images[number] = ImageRecord(name(image.id), image.view, member, *sizes)
        notes += [(member, note) for note in converted.notes]
    if not images:
        return tuple(dropped) or (DroppedSample(key=key, reason="no image"),)
    positions = {number: position for position, number in enumerate(images)}
    masks, mask_members = _convert_masks(sample, images, positions, key, as_stored=as_stored)
    boxes, cut = _place_boxes(sample, images, positions, outside=config.source.boxes_outside)
    notes += [(images[number].member, Note("boxes_cut")) for number in cut]
    record = StudyRecord(
        key=key,
        patient_id=name(sample.patient_id),
        study_id=name(sample.study_id),
        split=split,
        source=config.source_name,
        licence=config.source.licence,
        images=tuple(images.values()),
        report=sample.report,
        labels=sample.labels,
        boxes=boxes,
        masks=masks,
    )
    notes += [
        (member, note) for member, payload in mask_members.items() for note in mask_notes(payload)
    ]
    members |= {**mask_members, "json": record.to_json()}
    return ConvertedStudy(record, members, tuple(dropped), tuple(notes))


def _refuse_strays(sample: Sample, key: str) -> None:
    for what, drawn in (("box", sample.boxes), ("mask", sample.masks)):
        for each in drawn:
            if not 0 <= each.image < len(sample.images):
                raise InputError(
                    f"{key}: a {what} names image {each.image}, but the study has "
                    f"{len(sample.images)}: correct the annotation"
                )


def _refuse_another_size(image: SourceImage, size: Size) -> None:
    if image.size_px not in (None, size):
        told, found = (f"{width} x {height} px" for width, height in (image.size_px, size))
        raise InputError(
            f"{image.listed}: image {image.id}: boxes were drawn on {told}, and {image.path} has "
            f"{found}: fetch the image that the table is of"
        )


def _lacks_a_mask(sample: Sample, number: int, config: ShardsConfig) -> bool:
    """Whether one is missing of an image that may be left out for it. Raises where it may not."""
    for mask in sample.masks:
        if mask.image != number:
            continue
        try:
            mask.path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            if config.drops(MISSING_IMAGE):
                return True
            told = BadImageError(
                mask.path,
                "missing mask",
                "restore the file, or leave its image out by missing_images=drop",
            )
            raise told_with_its_row(told, mask) from error
        except (OSError, ValueError):
            # Told by whoever reads it.
            continue
    return False


def _convert_masks(
    sample: Sample,
    images: Mapping[int, ImageRecord],
    positions: Mapping[int, int],
    key: str,
    *,
    as_stored: bool,
) -> tuple[tuple[MaskRecord, ...], dict[str, bytes]]:
    records: list[MaskRecord] = []
    members: dict[str, bytes] = {}
    for mask in sample.masks:
        if mask.image not in images:
            continue
        image, position = images[mask.image], positions[mask.image]
        category = re.sub(r"[^A-Za-z0-9-]+", "_", mask.category)
        suffix = f"_image{position}" if position else ""
        member = f"mask_{category}{suffix}.png"
        record = MaskRecord(position, mask.category, member)
        if member in members and record not in records:
            raise InputError(
                f"{key}: {member} would be the mask of {mask.category!r} and of another category: "
                "name them apart by letters and digits"
            )
        try:
            converted = convert_mask(
                mask.path,
                original=(image.original_width, image.original_height),
                stored=(image.width, image.height),
                as_stored=as_stored,
            )
        except BadImageError as error:
            raise told_with_its_row(error, mask) from error
        if member in members:
            members[member] = united_mask(members[member], converted)
        else:
            members[member] = converted
            records.append(record)
    return tuple(records), members


def _place_boxes(
    sample: Sample,
    images: Mapping[int, ImageRecord],
    positions: Mapping[int, int],
    *,
    outside: BoxesOutside,
) -> tuple[tuple[Box, ...], list[int]]:
    """Boxes in pixels of the stored images, and the numbers of images of which some were cut."""
    placed: list[Box] = []
    cut: list[int] = []
    for box in sample.boxes:
        image = images.get(box.image)
        if image is None:
            continue
        inside = _inside(box, image.original_width, image.original_height)
        if inside is None:
            raise InputError(
                f"{_told_box(box, sample, image)} lies beside its image of "
                f"{image.original_width} x {image.original_height} px: was it drawn on an image of "
                "another size? Take that one, or remove the box"
            )
        if inside != box and outside == "stop":
            raise InputError(
                f"{_told_box(box, sample, image)} reaches out of its image of "
                f"{image.original_width} x {image.original_height} px: correct it, or set "
                "source.boxes_outside=clip (if the image was turned by its tag: see "
                "source.orientation)"
            )
        if inside != box and outside == "clip":
            cut += [] if box.image in cut else [box.image]
            box = inside
        placed.append(_scaled(box, positions[box.image], image))
    return tuple(placed), cut


def _told_box(box: Box, sample: Sample, image: ImageRecord) -> str:
    source = sample.images[box.image]
    return (
        f"{source.listed or source.path}: image {image.id}: a box of {box.category!r} "
        f"({box.width:g} x {box.height:g} px at {box.x:g}, {box.y:g})"
    )


def _inside(box: Box, width: int, height: int) -> Box | None:
    """The part of a box that its image shows, if any; the box itself where rounding puts it out."""
    right, lower = box.x + box.width, box.y + box.height
    if min(box.x, box.y) >= -ROUNDING_PX and right - width <= ROUNDING_PX >= lower - height:
        return box
    x, y = max(box.x, 0.0), max(box.y, 0.0)
    right, lower = min(right, width), min(lower, height)
    if right <= x or lower <= y:
        return None
    return replace(box, x=x, y=y, width=right - x, height=lower - y)


def _scaled(box: Box, position: int, image: ImageRecord) -> Box:
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
