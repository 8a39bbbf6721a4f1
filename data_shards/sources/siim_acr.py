"""SIIM-ACR Pneumothorax Segmentation: DICOMs, and masks as relative run lengths in a table.

<root>/train-rle.csv                              ImageId, EncodedPixels
<root>/dicom-images-train/<study>/<series>/<ImageId>.dcm

Run lengths are pairs (gap since the end of the run before, length) over the columns of a square
image, one below the other; -1 is a negative image. Several rows of an image are parts of one mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import SourceImage
from data_shards.sources.annotations import DrawnMask
from data_shards.sources.base import Source, SourceConfig, StudyRef
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_files import files_by_stem, placed, unnamed, with_views_of_headers
from data_shards.sources.image_row import ImageRow, ListedMask
from data_shards.sources.values import VIEWS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGES_NAME = "dicom-images-train"
TABLE_NAME = "train-rle.csv"
LABEL = "Pneumothorax"
NEGATIVE = "-1"
# (First pixel, length) of each run.
Runs = tuple[tuple[int, int], ...]


class SiimAcrConfig(SourceConfig):
    """`root` holds the table and the folder of DICOMs; images are `side_px` squares."""

    name: Literal["siim_acr"] = "siim_acr"
    licence: str = "SIIM-ACR Pneumothorax Segmentation terms of use (non-commercial)"
    root: Path
    side_px: int = Field(default=1024, ge=1)

    def open(self) -> SiimAcrSource:
        """The images of the table."""
        return SiimAcrSource(self)


class SiimAcrSource(Source):
    """One study, and one patient, an image: the set names no patients."""

    config: SiimAcrConfig
    views = VIEWS
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """The one table."""
        return (self.config.root / TABLE_NAME,)

    def rows(self) -> Iterator[ImageRow]:
        """An image a row, its masks united. Raises InputError for runs that make no mask."""
        side, folder = self.config.side_px, self.config.root / IMAGES_NAME
        lines: dict[str, list[Row]] = defaultdict(list)
        for row in read_rows(self.tables()[0], ("ImageId", "EncodedPixels")):
            lines[row.filled("ImageId")].append(row)
        for image, rows in lines.items():
            first = rows[0]
            negatives = [row["EncodedPixels"] == NEGATIVE for row in rows]
            if any(negatives) and not all(negatives):
                raise InputError(
                    f"{rows[1].where}: image {image} is negative (-1) in one line and has runs in "
                    "another: remove one of them"
                )
            runs = () if all(negatives) else tuple(sorted(_runs(rows, side)))
            told = f"{first.where}: EncodedPixels"
            mask = DrawnMask(told, partial(draw_runs, runs, side))
            yield ImageRow(
                first.line,
                image,
                placed(image, self._files, folder, ".dcm"),
                patient_id=image,
                study_id=image,
                view="FRONTAL",
                labels={LABEL: float(bool(runs))},
                masks=(ListedMask(LABEL, mask),) if runs else (),
            )

    def known_images(self, ref: StudyRef) -> tuple[SourceImage, ...]:
        """The image, by the view that its header names: a frontal that names none counts as PA."""
        return with_views_of_headers(super().known_images(ref))

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of the folder that the table does not name, too."""
        return (*super().list_dropped_images(), *unnamed(self._files, self.named_images, "masks"))

    @cached_property
    def _files(self) -> dict[str, Path]:
        return files_by_stem([self.config.root / IMAGES_NAME], frozenset({".dcm"}))


def draw_runs(runs: Runs, side_px: int) -> NDArray[np.uint8]:
    """The mask of `side_px` squared whose columns, one below the other, have these runs inside."""
    import numpy as np

    flat = np.zeros(side_px * side_px, dtype=np.uint8)
    for first, length in runs:
        flat[first : first + length] = 1
    return flat.reshape(side_px, side_px).T


def _runs(rows: Sequence[Row], side_px: int) -> Iterator[tuple[int, int]]:
    for row in rows:
        cell = row["EncodedPixels"]
        words = cell.split()
        if not words or len(words) % 2 or not all(word.isdecimal() for word in words):
            raise InputError(
                f"{row.where}: EncodedPixels {cell[:40]!r}: pairs of whole numbers are wanted, or "
                "-1: fetch the table again"
            )
        end = 0
        for gap, length in zip(map(int, words[::2]), map(int, words[1::2]), strict=True):
            first, end = end + gap, end + gap + length
            if end > side_px * side_px:
                raise InputError(
                    f"{row.where}: EncodedPixels: a run ends at pixel {end:,}, where "
                    f"{side_px} x {side_px} px have {side_px * side_px:,}: are these absolute "
                    "starts, or is source.side_px another?"
                )
            yield first, length
