"""A contact sheet of finished shards: images with their boxes and masks, sentences below."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from data_shards.checking.stored_images import NOT_DECODED, decoded_image
from data_shards.checking.stored_studies import mended_tar
from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically
from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import (
    MANIFEST_NAME,
    ShardEntry,
    parse_shard_index,
    read_manifest,
)
from data_shards.records.study import Split, StudyRecord
from data_shards.remote.shards import ShardFiles

COLUMNS = 3
IMAGES_PER_STUDY = 2
PHRASE_LINES = 4
LINES = 10
LINE_CHARACTERS = 78
CELL_PX = (490, 430)
IMAGE_PX = (240, 250)
LINE_PX = 15
MARGIN_PX = 4
SECTIONS_FIRST = ("findings", "impression", "last_paragraph")
BACKGROUND, TEXT, HEADING = "#181a1e", "#d6dae0", "#8cc8ff"
# Told apart on grey, by readers with colour-blindness as well (Okabe and Ito).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")
# Pillow's own font has few letters beyond ASCII.
FONT = ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 11)

# A record, and its images and masks by member.
_Study: TypeAlias = tuple[StudyRecord, dict[str, Image.Image]]


def draw_preview(
    shards: Path | ShardFiles, *, split: Split, samples: int, sheet: Path | None = None
) -> Path:
    """The path of a PNG that shows `samples` studies, spread over `split`.

    It is `sheet`, by default one in the folder of the shards; in a store there is no place for one.
    Each study has up to two images (frontal first), boxes and masks in the colour of their
    category, and below them the boxes' phrases and the report's first sentences. Raises InputError
    for an unfinished folder, an empty split, a damaged tar, and where the sheet cannot be written.
    """
    files = ShardFiles.of(shards)
    if files.is_remote and sheet is None:
        raise InputError(f"{files}: no sheet is put into a store: pass --sheet FILE.png")
    path = files.folder / f"preview_{split}.png" if sheet is None else sheet
    if sheet is not None and (sheet.suffix.lower() != ".png" or not _is_sheet_or_nothing(sheet)):
        raise InputError(f"--sheet {sheet}: the sheet is a PNG: name one, or a file not there yet")
    studies = _read_studies(files, split, samples)
    categories = {box.category for record, _ in studies for box in record.boxes}
    categories |= {mask.category for record, _ in studies for mask in record.masks}
    colour_of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(categories))}
    columns = min(COLUMNS, len(studies))
    (width, height), rows = CELL_PX, -(-len(studies) // columns)
    drawn = Image.new("RGB", (columns * width, rows * height), BACKGROUND)
    for number, study in enumerate(studies):
        row, column = divmod(number, columns)
        drawn.paste(_drawn(study, colour_of), (column * width, row * height))
    encoded = io.BytesIO()
    drawn.save(encoded, "PNG")
    try:
        write_bytes_atomically(path, encoded.getvalue())
    except OSError as error:
        raise InputError(
            f"{path}: the sheet cannot be written ({error.strerror}): pass --sheet FILE.png with a "
            "place that can be written to"
        ) from error
    return path


def _is_sheet_or_nothing(path: Path) -> bool:
    return not path.exists() or (path.is_file() and path.read_bytes()[:4] == b"\x89PNG")


def _read_studies(files: ShardFiles, split: Split, count: int) -> list[_Study]:
    folder = files.manifest_folder()
    manifest = read_manifest(folder)
    refuse_contradictions(manifest.contradictions(), folder / MANIFEST_NAME)
    shards = [entry for entry in manifest.shards if entry.split == split]
    places = [(entry, position) for entry in shards for position in range(entry.samples)]
    if not places:
        raise InputError(f"{files}: split {split!r} is empty: pass --split with another")
    count = min(count, len(places))
    spread = [places[number * len(places) // count] for number in range(count)]
    by_shard = groupby(spread, key=itemgetter(0))
    return [study for entry, own in by_shard for study in _read_shard(files, entry, own)]


def _read_shard(
    files: ShardFiles, entry: ShardEntry, places: Iterable[tuple[ShardEntry, int]]
) -> Iterator[_Study]:
    index = parse_shard_index(files.index_bytes(entry), files.folder / entry.index_name)
    refuse_contradictions(index.contradictions(entry), files.told(entry.index_name))
    with mended_tar(files, entry) as file:
        for _, position in places:
            yield _read_study(files, entry, file, index.samples[position])


def _read_study(
    files: ShardFiles, entry: ShardEntry, file: io.BufferedReader, sample: IndexedSample
) -> _Study:
    tar, path = files.told(entry.tar_name), files.told(entry.index_name)
    members: dict[str, bytes] = {}
    tar_bytes = os.fstat(file.fileno()).st_size
    for name, member in sample.members.items():
        payload = member.read(file, tar_bytes=tar_bytes)
        if payload is None:
            raise InputError(
                f"{tar}: {sample.key}.{name} is damaged: delete the tar and build again "
                "(`python -m data_shards verify` lists all that is wrong)"
            )
        members[name] = payload
    try:
        record = StudyRecord.from_json(members.pop("json"))
        refuse_contradictions(sample.contradictions(record, entry.split), path)
        # What the record does not name is not shown, nor decoded.
        image_of = {image.member: image for image in record.images}
        image_of |= {mask.member: record.images[mask.image] for mask in record.masks}
        sizes = {name: (image.width, image.height) for name, image in image_of.items()}
        images = {name: decoded_image(members[name], size) for name, size in sizes.items()}
        for name, size in sizes.items():
            if images[name].size != size:
                raise ValueError(f"{name} has another size than its record says")
    except InputError:
        raise
    except NOT_DECODED as error:
        raise InputError(
            f"{tar}: {sample.key} cannot be read ({error}): run `python -m data_shards verify`"
        ) from error
    return record, images


def _drawn(study: _Study, colour_of: Mapping[str, str]) -> Image.Image:
    record, _ = study
    cell = Image.new("RGB", CELL_PX, BACKGROUND)
    draw = ImageDraw.Draw(cell)
    order = [*record.frontal_images(), *record.lateral_images()]
    order += [position for position in range(len(record.images)) if position not in order]
    shown, hidden = order[:IMAGES_PER_STUDY], len(order) - IMAGES_PER_STUDY
    views = " + ".join(record.images[position].view or "view unknown" for position in shown)
    more = f" and {hidden} more" if hidden > 0 else ""
    draw.text((MARGIN_PX, MARGIN_PX), f"{record.key}   {views}{more}", HEADING, FONT)
    top = LINE_PX + 2 * MARGIN_PX
    for number, position in enumerate(shown):
        left = MARGIN_PX + number * (IMAGE_PX[0] + MARGIN_PX)
        cell.paste(_annotated(study, position, colour_of), (left, top))
    top += IMAGE_PX[1]
    for number, (line, colour) in enumerate(_lines(record, colour_of)):
        draw.text((MARGIN_PX, top + number * LINE_PX), line, colour, FONT)
    return cell


def _annotated(study: _Study, position: int, colour_of: Mapping[str, str]) -> Image.Image:
    """One image of a study with its masks and boxes."""
    record, members = study
    image = members[record.images[position].member].convert("RGB")
    for mask in record.masks:
        if mask.image == position:
            veil = members[mask.member].point(lambda level: 0.3 * level)
            image.paste(colour_of[mask.category], (0, 0), veil)
    scale = min(IMAGE_PX[0] / image.width, IMAGE_PX[1] / image.height)
    # A line of pixels stays visible.
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    draw = ImageDraw.Draw(image)
    for box in record.boxes:
        if box.image == position:
            x, y, colour = box.x * scale, box.y * scale, colour_of[box.category]
            corner = (x + box.width * scale, y + box.height * scale)
            draw.rectangle((x, y, *corner), outline=colour, width=2)
            # Above the box, where there is room.
            place = (x, max(y, LINE_PX))
            draw.text(place, box.category, colour, FONT, "lb", stroke_width=1, stroke_fill="black")
    return image


def _lines(record: StudyRecord, colour_of: Mapping[str, str]) -> list[tuple[str, str]]:
    """The boxes' phrases in their colours, then the report, findings first."""
    phrases = dict.fromkeys((box.category, box.phrase) for box in record.boxes if box.phrase)
    lines = [
        (textwrap.shorten(f"{name}: {said}", LINE_CHARACTERS, placeholder=" ..."), colour_of[name])
        for name, said in list(phrases)[:PHRASE_LINES]
    ]
    sentences = record.report.sentences
    for name in dict.fromkeys((*SECTIONS_FIRST, *sentences)):
        if said := " ".join(sentences.get(name, ())):
            lines += [(line, TEXT) for line in textwrap.wrap(f"{name}: {said}", LINE_CHARACTERS)]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], ("...", TEXT)]
