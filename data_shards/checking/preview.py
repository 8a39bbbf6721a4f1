"""A contact sheet of a shard folder: images with their boxes and masks, sentences below."""

from __future__ import annotations

import io
import json
import textwrap
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically
from data_shards.records.manifest import IndexedSample, read_manifest, read_shard_index
from data_shards.records.study import ImageRecord, Split, StudyRecord

IMAGE_HEIGHT_PX = 256
IMAGES_PER_STUDY = 2
COLUMNS = 3
MARGIN_PX = 12
LINE_PX = 15
DESCENT_PX = 6
TEXT_LINES = 6
PHRASE_LINES = 4
FONT_PX = 12
BACKGROUND = (24, 26, 30)
TEXT = (214, 218, 224)
HEADING = (140, 200, 255)
# Told apart on grey, by readers with colour-blindness as well (Okabe and Ito).
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)
Colour: TypeAlias = tuple[int, int, int]
SECTIONS_FIRST = ("findings", "impression", "last_paragraph")


@dataclass(frozen=True, slots=True)
class _Study:
    record: StudyRecord
    members: dict[str, bytes]


def draw_preview(folder: Path, *, split: Split, samples: int) -> Path:
    """The path of a PNG in `folder` that shows `samples` studies, spread over `split`.

    Each has up to two images (frontal first), boxes and masks in the colour of their category,
    and below them the boxes' phrases and the report's first sentences. Raises InputError for an
    unfinished folder, an empty split or a damaged tar.
    """
    studies = _read_studies(folder, split, samples)
    categories = sorted(
        {box.category for study in studies for box in study.record.boxes}
        | {mask.category for study in studies for mask in study.record.masks}
    )
    colour_of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(categories)}
    cells = [_draw_study(study, colour_of) for study in studies]
    path = folder / f"preview_{split}.png"
    encoded = io.BytesIO()
    _lay_out(cells).save(encoded, "PNG")
    write_bytes_atomically(path, encoded.getvalue())
    return path


def _read_studies(folder: Path, split: Split, count: int) -> list[_Study]:
    shards = [entry for entry in read_manifest(folder).shards if entry.split == split]
    total = sum(entry.samples for entry in shards)
    if not total:
        raise InputError(f"{folder}: split {split!r} is empty: pass --split with another")
    count = min(count, total)
    wanted = [number * total // count for number in range(count)]
    studies: list[_Study] = []
    first = 0
    for entry in shards:
        here = [number - first for number in wanted if first <= number < first + entry.samples]
        first += entry.samples
        if here:
            index = read_shard_index(folder / entry.index_name)
            tar = folder / entry.tar_name
            studies += [_read_study(tar, index.samples[position]) for position in here]
    return studies


def _read_study(tar: Path, sample: IndexedSample) -> _Study:
    members: dict[str, bytes] = {}
    with tar.open("rb") as file:
        for name, member in sample.members.items():
            file.seek(member.offset)
            members[name] = file.read(member.size)
            if zlib.crc32(members[name]) != member.crc32:
                raise InputError(
                    f"{tar}: {sample.key}.{name} is damaged: delete the tar and build again "
                    "(`python -m data_shards verify` lists all that is wrong)"
                )
    try:
        return _Study(StudyRecord.from_json(json.loads(members["json"])), members)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{tar}: the record of {sample.key} cannot be read: run `python -m data_shards verify`"
        ) from error


def _draw_study(study: _Study, colour_of: dict[str, Colour]) -> Image.Image:
    record = study.record
    order = [*record.frontal_images(), *record.lateral_images()]
    order += [position for position in range(len(record.images)) if position not in order]
    drawn = [_draw_image(study, position, colour_of) for position in order[:IMAGES_PER_STUDY]]
    gap = MARGIN_PX // 2
    across = sum(image.width for image in drawn) + gap * (len(drawn) - 1)
    width = max(across, IMAGE_HEIGHT_PX)
    lines = _lines(record, colour_of, characters=width * 2 // FONT_PX)
    cell = Image.new(
        "RGB", (width, IMAGE_HEIGHT_PX + LINE_PX * (len(lines) + 1) + DESCENT_PX), BACKGROUND
    )
    left = 0
    for image in drawn:
        cell.paste(image, (left, 0))
        left += image.width + gap
    pen = ImageDraw.Draw(cell)
    font = ImageFont.load_default(FONT_PX)
    views = " + ".join(record.images[i].view or "view unknown" for i in order[:IMAGES_PER_STUDY])
    hidden = len(order) - IMAGES_PER_STUDY
    more = f" and {hidden} more" if hidden > 0 else ""
    pen.text((0, IMAGE_HEIGHT_PX + 2), f"{record.key}   {views}{more}", HEADING, font)
    for number, (line, colour) in enumerate(lines, start=1):
        pen.text((0, IMAGE_HEIGHT_PX + 2 + number * LINE_PX), line, colour, font)
    return cell


def _draw_image(study: _Study, position: int, colour_of: dict[str, Colour]) -> Image.Image:
    record = study.record
    stored = record.images[position]
    image = _decode(study, stored.member).convert("RGB")
    for mask in record.masks:
        if mask.image == position:
            inside = np.asarray(_decode(study, mask.member)) > 0
            image = _tinted(image, inside, colour_of[mask.category])
    scale = IMAGE_HEIGHT_PX / stored.height
    size = (max(1, round(stored.width * scale)), IMAGE_HEIGHT_PX)
    image = image.resize(size, Image.Resampling.BICUBIC)
    _draw_boxes(image, record, position, stored, colour_of)
    return image


def _decode(study: _Study, member: str) -> Image.Image:
    with Image.open(io.BytesIO(study.members[member]), formats=("JPEG", "PNG")) as image:
        image.load()
        return image


def _tinted(
    image: Image.Image,
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    colour: Colour,
) -> Image.Image:
    pixels = np.array(image, dtype=np.float32)
    pixels[inside] = 0.7 * pixels[inside] + 0.3 * np.array(colour, dtype=np.float32)
    return Image.fromarray(pixels.astype(np.uint8))


def _draw_boxes(
    image: Image.Image,
    record: StudyRecord,
    position: int,
    stored: ImageRecord,
    colour_of: dict[str, Colour],
) -> None:
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(FONT_PX - 1)
    scale = image.height / stored.height
    for box in record.boxes:
        if box.image != position:
            continue
        left, top = box.x * scale, box.y * scale
        colour = colour_of[box.category]
        corner = (left + box.width * scale, top + box.height * scale)
        pen.rectangle(((left, top), corner), outline=colour, width=2)
        # Within the image, above the box where there is room.
        x = max(0.0, min(left, image.width - pen.textlength(box.category, font)))
        y = top - LINE_PX if top >= LINE_PX else top + 2
        pen.text((x, y), box.category, colour, font, stroke_width=1, stroke_fill=(0, 0, 0))


def _lines(
    record: StudyRecord, colour_of: dict[str, Colour], *, characters: int
) -> list[tuple[str, Colour]]:
    """Lines of text with their colours: phrases of the boxes, then the report's sentences."""
    phrases = dict.fromkeys((box.category, box.phrase) for box in record.boxes if box.phrase)
    lines = [
        (
            textwrap.shorten(f"{category}: {phrase}", characters, placeholder=" ..."),
            colour_of[category],
        )
        for category, phrase in list(phrases)[:PHRASE_LINES]
    ]
    sentences = record.report.sentences
    sections = [name for name in SECTIONS_FIRST if sentences.get(name)]
    sections += [name for name in sentences if name not in sections]
    text: list[str] = []
    for name in sections:
        for number, sentence in enumerate(sentences[name]):
            heading = f"{name}: " if number == 0 else ""
            text += textwrap.wrap(heading + sentence, width=characters)
    if len(text) > TEXT_LINES:
        text = [*text[: TEXT_LINES - 1], "..."]
    return lines + [(line, TEXT) for line in text]


def _lay_out(cells: Sequence[Image.Image]) -> Image.Image:
    columns = min(COLUMNS, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    widths = [max(row[i].width for row in rows if i < len(row)) for i in range(columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new(
        "RGB",
        (
            sum(widths) + MARGIN_PX * (columns + 1),
            sum(heights) + MARGIN_PX * (len(rows) + 1),
        ),
        BACKGROUND,
    )
    top = MARGIN_PX
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN_PX
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell, (left, top))
            left += width + MARGIN_PX
        top += height + MARGIN_PX
    return sheet
