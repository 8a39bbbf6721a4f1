"""A contact sheet of a shard folder: images with their boxes and masks, sentences below."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically
from data_shards.records.manifest import ShardEntry, read_manifest, read_shard_index
from data_shards.records.study import Split, StudyRecord

COLUMNS = 3
IMAGES_PER_STUDY = 2
PHRASE_LINES = 4
LINES = 10
LINE_CHARACTERS = 78
CELL_INCHES = (4.9, 4.2)
DOTS_PER_INCH = 100
SECTIONS_FIRST = ("findings", "impression", "last_paragraph")
BACKGROUND, TEXT, HEADING = "#181a1e", "#d6dae0", "#8cc8ff"
# Told apart on grey, by readers with colour-blindness as well (Okabe and Ito).
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#d55e00", "#cc79a7")


# A record, and the grey levels of its images and masks by member.
_Study: TypeAlias = tuple[StudyRecord, dict[str, np.ndarray]]


def draw_preview(folder: Path, *, split: Split, samples: int) -> Path:
    """The path of a PNG in `folder` that shows `samples` studies, spread over `split`.

    Each has up to two images (frontal first), boxes and masks in the colour of their category,
    and below them the boxes' phrases and the report's first sentences. Raises InputError for an
    unfinished folder, an empty split or a damaged tar.
    """
    studies = _read_studies(folder, split, samples)
    categories = {each.category for record, _ in studies for each in (*record.boxes, *record.masks)}
    colour_of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(categories))}
    columns = min(COLUMNS, len(studies))
    rows = -(-len(studies) // columns)
    figure = Figure(
        figsize=(columns * CELL_INCHES[0], rows * CELL_INCHES[1]),
        dpi=DOTS_PER_INCH,
        facecolor=BACKGROUND,
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    # The lower part of each cell is for its text.
    figure.subplots_adjust(0.01, 0.42 / rows, 0.99, 1 - 0.07 / rows, wspace=0.03, hspace=0.9)
    for axes in grid.flat:
        axes.axis("off")
    for axes, study in zip(grid.flat, studies, strict=False):
        _draw_study(axes, study, colour_of)
    path = folder / f"preview_{split}.png"
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    write_bytes_atomically(path, encoded.getvalue())
    return path


def _read_studies(folder: Path, split: Split, count: int) -> list[_Study]:
    shards = [entry for entry in read_manifest(folder).shards if entry.split == split]
    places = [(entry, position) for entry in shards for position in range(entry.samples)]
    if not places:
        raise InputError(f"{folder}: split {split!r} is empty: pass --split with another")
    count = min(count, len(places))
    spread = [places[number * len(places) // count] for number in range(count)]
    return [_read_study(folder, entry, position) for entry, position in spread]


def _read_study(folder: Path, entry: ShardEntry, position: int) -> _Study:
    tar = folder / entry.tar_name
    sample = read_shard_index(folder / entry.index_name).samples[position]
    members: dict[str, bytes] = {}
    with tar.open("rb") as file:
        for name, member in sample.members.items():
            payload = member.read(file)
            if payload is None:
                raise InputError(
                    f"{tar}: {sample.key}.{name} is damaged: delete the tar and build again "
                    "(`python -m data_shards verify` lists all that is wrong)"
                )
            members[name] = payload
    try:
        record = StudyRecord.from_json(members.pop("json"))
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{tar}: the record of {sample.key} cannot be read: run `python -m data_shards verify`"
        ) from error
    kinds = ("JPEG", "PNG")
    return record, {
        name: np.asarray(Image.open(io.BytesIO(payload), formats=kinds))
        for name, payload in members.items()
    }


def _draw_study(axes: Axes, study: _Study, colour_of: Mapping[str, str]) -> None:
    record, _ = study
    order = [*record.frontal_images(), *record.lateral_images()]
    order += [position for position in range(len(record.images)) if position not in order]
    right = 0.0
    for position in order[:IMAGES_PER_STUDY]:
        # Images are of height 1, side by side.
        right = _draw_image(axes, study, position, colour_of, left=right) + 0.03
    axes.set(xlim=(0, max(right, 2)), ylim=(1, 0))
    axes.set_anchor("NW")
    views = " + ".join(record.images[i].view or "view unknown" for i in order[:IMAGES_PER_STUDY])
    hidden = len(order) - IMAGES_PER_STUDY
    more = f" and {hidden} more" if hidden > 0 else ""
    axes.set_title(f"{record.key}   {views}{more}", loc="left", color=HEADING, fontsize=9)
    lines = _phrases(record, colour_of)
    lines += [(text, TEXT) for text in _sentences(record, most=LINES - len(lines))]
    for number, (line, colour) in enumerate(lines):
        axes.annotate(
            line,
            (0, 0),
            (2, -6 - 11 * number),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=8,
            va="top",
            parse_math=False,
        )


def _draw_image(
    axes: Axes, study: _Study, position: int, colour_of: Mapping[str, str], *, left: float
) -> float:
    """Draw one image from `left` on; where it ends."""
    record, pixels = study
    stored = record.images[position]
    scale = 1 / stored.height
    place = (left, left + stored.width * scale, 1, 0)
    image = pixels[stored.member]
    axes.imshow(image, "gray", vmin=0, vmax=255, extent=place, interpolation="bicubic")
    for mask in record.masks:
        if mask.image == position:
            inside = pixels[mask.member][..., None] > 0
            axes.imshow(inside * (*to_rgb(colour_of[mask.category]), 0.3), extent=place)
    for box in record.boxes:
        if box.image == position:
            x, y, colour = left + box.x * scale, box.y * scale, colour_of[box.category]
            size = (box.width * scale, box.height * scale)
            axes.add_patch(Rectangle((x, y), *size, fill=False, edgecolor=colour, linewidth=1.5))
            # Above the box, where there is room.
            name = axes.text(x, max(y - 0.01, 0.05), box.category, color=colour, fontsize=7)
            name.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    return place[1]


def _phrases(record: StudyRecord, colour_of: Mapping[str, str]) -> list[tuple[str, str]]:
    """The boxes' phrases, each with its colour."""
    phrases = dict.fromkeys((box.category, box.phrase) for box in record.boxes if box.phrase)
    return [
        (
            textwrap.shorten(f"{name}: {phrase}", LINE_CHARACTERS, placeholder=" ..."),
            colour_of[name],
        )
        for name, phrase in list(phrases)[:PHRASE_LINES]
    ]


def _sentences(record: StudyRecord, *, most: int) -> list[str]:
    """The report in lines, findings first."""
    sentences = record.report.sentences
    sections = [name for name in SECTIONS_FIRST if sentences.get(name)]
    sections += [name for name in sentences if name not in sections]
    lines: list[str] = []
    for name in sections:
        for number, sentence in enumerate(sentences[name]):
            heading = f"{name}: " if number == 0 else ""
            lines += textwrap.wrap(heading + sentence, LINE_CHARACTERS)
    return lines if len(lines) <= most else [*lines[: most - 1], "..."]
