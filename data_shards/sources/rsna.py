"""RSNA Pneumonia Detection Challenge (stage 2): DICOMs with boxes of opacities.

<root>/stage_2_train_images/<patientId>.dcm       patientId is an image's id
<root>/stage_2_train_labels.csv                   patientId,x,y,width,height,Target: a row a box
<root>/stage_2_detailed_class_info.csv            patientId,class: a row a box (optional)

The images are of NIH's ChestX-ray8, so that one patient has several: without `nih_mapping`, each
counts as a patient of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import SourceImage
from data_shards.sources.annotations import box_in, joined_by_image
from data_shards.sources.base import Source, SourceConfig, StudyRef
from data_shards.sources.formats.nih_mapping import nih_patient, read_nih_mapping
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_files import files_by_stem, placed, unnamed, with_views_of_headers
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import VIEWS

IMAGES_NAME = "stage_2_train_images"
LABELS_NAME = "stage_2_train_labels.csv"
CLASSES_NAME = "stage_2_detailed_class_info.csv"
BOX_COLUMNS = ("x", "y", "width", "height")
_COLUMNS = ("patientId", *BOX_COLUMNS, "Target")
# Whether the class is that of images with boxes, and whether the chest is normal.
CLASSES = {
    "Lung Opacity": (1.0, 0.0),
    "No Lung Opacity / Not Normal": (0.0, 0.0),
    "Normal": (0.0, 1.0),
}
LABEL = "Pneumonia"


class RsnaConfig(SourceConfig):
    """`root` holds the images and tables of stage 2.

    `nih_mapping` is the organisers' pneumonia-challenge-dataset-mappings_2018.json: with it the
    patients are NIH's, so that none of them is in two splits. No split is published: see
    `split_sizes`.
    """

    name: Literal["rsna"] = "rsna"
    licence: str = "RSNA Pneumonia Detection Challenge terms of use (non-commercial)"
    root: Path
    nih_mapping: Path | None = None

    def open(self) -> RsnaSource:
        """The images of the table of labels."""
        return RsnaSource(self)


class RsnaSource(Source):
    """One study an image: labels `Pneumonia` and, by the table of classes, `Normal`."""

    config: RsnaConfig
    views = VIEWS
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """Labels, and classes and the mapping to NIH where they are there."""
        root, mapping = self.config.root, self.config.nih_mapping
        classes = root / CLASSES_NAME
        more = ([classes] if classes.is_file() else [], [mapping] if mapping else [])
        return (root / LABELS_NAME, *more[0], *more[1])

    def rows(self) -> Iterator[ImageRow]:
        """An image a row, its boxes joined. Raises InputError for ids that do not join."""
        labels = self.tables()[0]
        rows = list(joined_by_image(map(self._row, read_rows(labels, _COLUMNS))))
        if lacking := self._classes.keys() - {row.image_id for row in rows}:
            raise InputError(
                f"{labels}: no line of {len(lacking):,} of the {len(self._classes):,} images in "
                f"{CLASSES_NAME} (first: {min(lacking)}): fetch both tables again"
            )
        return iter(rows)

    def known_images(self, ref: StudyRef) -> tuple[SourceImage, ...]:
        """The image, by the view that its header names: a frontal that names none counts as PA."""
        return with_views_of_headers(super().known_images(ref))

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of the folder that the table does not name, too."""
        return (*super().list_dropped_images(), *unnamed(self._files, self.named_images, "labels"))

    def _row(self, row: Row) -> ImageRow:
        image = row.filled("patientId")
        target = row["Target"]
        if target not in ("0", "1"):
            raise InputError(f"{row.where}: Target {target!r}: expected 0 or 1: correct it")
        box = box_in(row, BOX_COLUMNS, LABEL)
        if (box is not None) != (target == "1"):
            said = "a box" if box else "no box"
            raise InputError(
                f"{row.where}: image {image} has Target {target} and {said}: boxes belong to "
                "Target 1, and to it alone: correct one of them"
            )
        labels: dict[str, float | None] = {LABEL: float(target)}
        if self._classes:
            labels["Normal"] = self._class_of(image, row, target)
        folder = self.config.root / IMAGES_NAME
        return ImageRow(
            row.line,
            image,
            placed(image, self._files, folder, ".dcm"),
            patient_id=self._patient(image, row),
            study_id=image,
            view="FRONTAL",
            labels=labels,
            boxes=() if box is None else (box,),
        )

    def _class_of(self, image: str, row: Row, target: str) -> float:
        name = self._classes.get(image)
        if name is None:
            raise InputError(
                f"{row.where}: image {image} has no line in {CLASSES_NAME}: fetch that table "
                "again, or take it away"
            )
        positive, normal = CLASSES[name]
        if positive != float(target):
            raise InputError(
                f"{row.where}: image {image} has Target {target}, and in {CLASSES_NAME} the class "
                f"{name!r}: fetch both tables again"
            )
        return normal

    def _patient(self, image: str, row: Row) -> str:
        if self.config.nih_mapping is None:
            return image
        if image not in self._nih_images:
            raise InputError(
                f"{row.where}: image {image} is not in {self.config.nih_mapping}: fetch the "
                "mapping again, or leave source.nih_mapping out"
            )
        return nih_patient(self._nih_images[image])

    @cached_property
    def _files(self) -> dict[str, Path]:
        return files_by_stem([self.config.root / IMAGES_NAME], frozenset({".dcm"}))

    @cached_property
    def _classes(self) -> Mapping[str, str]:
        path = self.config.root / CLASSES_NAME
        if not path.is_file():
            return {}
        classes: dict[str, str] = {}
        for row in read_rows(path, ("patientId", "class")):
            image, name = row.filled("patientId"), row["class"]
            if name not in CLASSES:
                raise InputError(
                    f"{row.where}: class {name!r}: expected {', '.join(CLASSES)}: correct it"
                )
            if classes.setdefault(image, name) != name:
                raise InputError(
                    f"{row.where}: image {image} is {name!r}, and before {classes[image]!r}: "
                    "keep one of them"
                )
        return classes

    @cached_property
    def _nih_images(self) -> Mapping[str, str]:
        path = self.config.nih_mapping
        assert path is not None
        return read_nih_mapping(path)
