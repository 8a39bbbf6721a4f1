"""Object-CXR: foreign objects as rectangles, ellipses and polygons.

<root>/train.csv, <root>/dev.csv       image_name (or image_path),annotation
<root>/train/00001.jpg ..., <root>/dev/08001.jpg ...

An annotation is items joined by `;`: 0 a rectangle and 1 an ellipse (x1 y1 x2 y2), 2 a polygon
(x1 y1 x2 y2 ...). An empty one is a negative image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Box
from data_shards.sources.annotations import DrawnMask, number_in
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_files import files_by_stem, placed, unnamed
from data_shards.sources.image_row import ImageRow, ListedMask
from data_shards.sources.values import VIEWS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL = "Foreign object"
PARTS = ("train", "dev")
Geometry = Literal["correct", "authors"]
_KINDS = {"0": "rectangle", "1": "ellipse", "2": "polygon"}


@dataclass(frozen=True, slots=True)
class Shape:
    """One object: corners (x, y) of a rectangle or ellipse, or all points of a polygon."""

    kind: str
    points: tuple[tuple[float, float], ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x, y, width, height) of what it fills."""
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


class ObjectCxrConfig(SourceConfig):
    """`root` holds both tables and both folders of images.

    The 1,000 images of dev.csv are the test split, which the organisers kept for it; validation is
    drawn from train.csv. `geometry: authors` is what LoVT's published figures were judged by: width
    and height of boxes swapped, polygons transposed, and ellipses filled as rectangles. Boxes that
    reach out of their image when swapped are kept as they are, as there.
    """

    name: Literal["object_cxr"] = "object_cxr"
    licence: str = "CC BY-NC 4.0"
    root: Path
    geometry: Geometry = "correct"

    @model_validator(mode="before")
    @classmethod
    def _keep_swapped_boxes(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("geometry") == "authors":
            return {"boxes_outside": "keep"} | values
        return values

    def open(self) -> ObjectCxrSource:
        """The images of both tables."""
        return ObjectCxrSource(self)


class ObjectCxrSource(Source):
    """One study, and one patient, an image: the set names no patients."""

    config: ObjectCxrConfig
    views = VIEWS
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """The tables of both parts."""
        return tuple(self.config.root / f"{part}.csv" for part in PARTS)

    def rows(self) -> Iterator[ImageRow]:
        """The images of both tables. Raises InputError for an annotation that is no shape."""
        for part, table in zip(PARTS, self.tables(), strict=True):
            for row in read_rows(table, ("annotation",)):
                yield self._row(row, part)

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of the folders that the tables do not name, too."""
        every = (f"{part}/{name}" for part in PARTS for name in self._files[part])
        return (*super().list_dropped_images(), *unnamed(every, self.named_images, "objects"))

    def _row(self, row: Row, part: str) -> ImageRow:
        column = next((name for name in ("image_name", "image_path") if name in row.cells), None)
        if column is None:
            raise InputError(
                f"{row.path}: no column 'image_name' (or 'image_path'): fetch the table again"
            )
        image = Path(row.filled(column)).stem
        shapes = tuple(_shapes(row))
        path = placed(image, self._files[part], self.config.root / part, ".jpg")
        geometry = self.config.geometry
        told = f"{row.where}: annotation"
        as_stored = self.config.orientation == "as_stored"
        draw = partial(draw_shapes, shapes, Path(path), geometry, as_stored=as_stored)
        return ImageRow(
            row.line,
            f"{part}/{image}",
            path,
            patient_id=image,
            study_id=image,
            view="FRONTAL",
            split="test" if part == "dev" else None,
            labels={LABEL: float(bool(shapes))},
            boxes=tuple(_box(shape, geometry) for shape in shapes),
            masks=(ListedMask(LABEL, DrawnMask(told, draw)),) if shapes else (),
            table=str(row.path),
        )

    @cached_property
    def _files(self) -> dict[str, dict[str, Path]]:
        suffixes = frozenset({".jpg", ".jpeg"})
        return {part: files_by_stem([self.config.root / part], suffixes) for part in PARTS}


def draw_shapes(
    shapes: Sequence[Shape], image: Path, geometry: Geometry, *, as_stored: bool
) -> NDArray[np.uint8]:
    """The union of the shapes, filled, of the size of their image, upright or as it is stored.

    Raises RefusedError where that cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    from data_shards.images.picture import open_picture

    size = open_picture(image, as_stored=as_stored).size
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for shape in shapes:
        corners = [xy for point in shape.points for xy in point]
        if shape.kind == "polygon":
            # Transposed: as (row, column), which the authors' library did not expect.
            draw.polygon(corners if geometry == "correct" else corners[::-1], fill=255)
        elif shape.kind == "ellipse" and geometry == "correct":
            draw.ellipse(corners, fill=255)
        else:
            draw.rectangle(corners, fill=255)
    return np.asarray(mask)


def _box(shape: Shape, geometry: Geometry) -> Box:
    x, y, width, height = shape.box
    if geometry == "authors":
        width, height = height, width
    return Box(0, x, y, width, height, LABEL)


def _shapes(row: Row) -> Iterator[Shape]:
    for item in filter(None, (part.strip() for part in row["annotation"].split(";"))):
        kind, *numbers = item.split()
        coordinates = [number_in(row.where, "annotation", each) for each in numbers]
        points = tuple(zip(coordinates[::2], coordinates[1::2], strict=False))
        fits = len(points) >= 3 if kind == "2" else len(points) == 2
        if kind not in _KINDS or len(coordinates) % 2 or not fits:
            raise InputError(
                f"{row.where}: annotation {item[:40]!r}: expected 0 or 1 with x1 y1 x2 y2, or 2 "
                "with x and y of three points or more: correct it"
            )
        if kind != "2":
            (left, right), (upper, lower) = (sorted(each) for each in zip(*points, strict=True))
            points = ((left, upper), (right, lower))
        shape = Shape(_KINDS[kind], points)
        if min(shape.box[2:]) <= 0:
            raise InputError(f"{row.where}: annotation {item[:40]!r} has no area: remove it")
        yield shape
