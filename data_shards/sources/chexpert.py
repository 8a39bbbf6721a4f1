"""CheXpert, in full size and small: images with 14 labels out of reports that are not published.

<root>/train.csv, <root>/valid.csv     Path,Sex,Age,Frontal/Lateral,AP/PA and 14 labels
<root>/train/patient00001/study1/view1_frontal.jpg

Paths in the tables begin with the folder's published name, whatever it is called now.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from data_shards.errors import InputError
from data_shards.files.folders import files_below
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Split
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_files import unnamed
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import VIEWS, label_in

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
COLUMNS = ("Path", "Frontal/Lateral", "AP/PA", *LABELS)
_PATH = re.compile(r"(?:CheXpert-v1\.0[^/]*/)?((?:train|valid)/(patient\d+)/(study\d+)/[^/]+)\.jpg")
_DIRECTIONS = ("AP", "PA")


class ChexpertConfig(SourceConfig):
    """`root` holds train.csv and valid.csv, and their folders of images.

    `valid_table`: the 234 images of valid.csv, which radiologists labelled, are the `test` split
    (as in GLoRIA and MGCA), and validation is drawn from the patients of train.csv; or they are the
    `validate` split and all of train.csv is for training. Labels stay as they are: 1, 0, -1
    (uncertain) or nothing.
    """

    name: Literal["chexpert"] = "chexpert"
    licence: str = "Stanford University Dataset Research Use Agreement"
    root: Path
    valid_table: Literal["test", "validate"] = "test"

    def open(self) -> ChexpertSource:
        """The studies of both tables."""
        return ChexpertSource(self)


class ChexpertSource(Source):
    """Studies with all of their views; a study's number counts within its patient."""

    config: ChexpertConfig
    views = VIEWS
    study_ids_are_unique = False
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """The tables of both parts."""
        return (self.config.root / "train.csv", self.config.root / "valid.csv")

    def rows(self) -> Iterator[ImageRow]:
        """The images of both tables. Raises InputError for a path of another form.

        Columns beside those that are read (sex, age, an index that a program added) may be there.
        """
        for table in self.tables():
            for row in read_rows(table, COLUMNS):
                yield self._row(row, is_valid=table.name == "valid.csv")

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of the folders that the tables do not name, too."""
        root = self.config.root
        every = (
            str(path.relative_to(root).with_suffix(""))
            for part in ("train", "valid")
            for path in files_below(root / part, frozenset({".jpg"}))
        )
        return (*super().list_dropped_images(), *unnamed(every, self.named_images, "labels"))

    def _row(self, row: Row, *, is_valid: bool) -> ImageRow:
        written = row.filled("Path")
        found = _PATH.fullmatch(written)
        if found is None:
            raise InputError(
                f"{row.where}: Path {written!r}: expected CheXpert-v1.0/train/patient00001/study1/"
                "view1_frontal.jpg or its like: fetch the table again"
            )
        image, patient, study = found.groups()
        split: Split | None = self.config.valid_table
        if not is_valid:
            split = None if self.config.valid_table == "test" else "train"
        return ImageRow(
            row.line,
            image,
            str(self.config.root / f"{image}.jpg"),
            patient_id=patient,
            study_id=study,
            view=_view(row),
            split=split,
            labels={name: label_in(row, name) for name in LABELS},
            table=str(row.path),
        )


def _view(row: Row) -> str:
    """Frontal, lateral, and of frontal ones the direction where the table tells."""
    view = row["Frontal/Lateral"]
    direction = row["AP/PA"].upper()
    return direction if view.upper() == "FRONTAL" and direction in _DIRECTIONS else view
