"""MS-CXR as a set of its own: phrases and their boxes, on images of MIMIC-CXR-JPG."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from data_shards.errors import InputError
from data_shards.records.study import Split
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.tables import Row
from data_shards.sources.image_row import ImageRow
from data_shards.sources.ms_cxr import Annotation, annotation_file, read_annotations
from data_shards.sources.values import VIEWS, split_in

_PATH = re.compile(r"(?:.*/)?(files/p\d{2}/p(\d{8})/s(\d{8})/)[^/]+\.(?:jpg|dcm)")


class MsCxrConfig(SourceConfig):
    """`annotations` is MS-CXR's CSV or JSON, or its folder; `image_root` is MIMIC-CXR-JPG's.

    `split`: the table's own, where it has one (from release 1.1 on), or drawn by patient.
    """

    name: Literal["ms_cxr"] = "ms_cxr"
    licence: str = "PhysioNet Credentialed Health Data License 1.5.0"
    annotations: Path
    image_root: Path
    split: Literal["own", "drawn"] = "own"

    def open(self) -> MsCxrSource:
        """The images with boxes."""
        return MsCxrSource(self)


class MsCxrSource(Source):
    """One study a study of MIMIC-CXR: its images with boxes, each box with its phrase.

    The report is the study's phrases, as findings: the reports themselves are in MIMIC-CXR. All
    images are frontal; which way the rays went is not said, so that they count as PA.
    """

    config: MsCxrConfig
    views = VIEWS
    images_placed_by = "source.image_root"

    def tables(self) -> Sequence[Path]:
        """The one file of annotations."""
        return (annotation_file(self.config.annotations),)

    def rows(self) -> Iterator[ImageRow]:
        """An image a row. Raises InputError for a path that is none of MIMIC-CXR's."""
        boxes: dict[str, list[Annotation]] = defaultdict(list)
        phrases: dict[str, dict[str, None]] = defaultdict(dict)
        for each in read_annotations(self.config.annotations):
            first = boxes[each.dicom_id][0] if boxes[each.dicom_id] else each
            if (first.path, first.split) != (each.path, each.split):
                raise InputError(
                    f"{each.where}: image {each.dicom_id} is {each.path!r} in split "
                    f"{each.split!r}, but in line {first.line} {first.path!r} in {first.split!r}: "
                    "keep one of them"
                )
            boxes[each.dicom_id].append(each)
            phrases[_ids(each)[2]][each.box.phrase] = None
        for image, here in boxes.items():
            first = here[0]
            folder, patient, study = _ids(first)
            told = [each for each in phrases[study] if each]
            yield ImageRow(
                first.line,
                image,
                str(self.config.image_root / folder / f"{image}.jpg"),
                patient_id=patient,
                study_id=study,
                view="FRONTAL",
                split=self._split(first),
                texts={"findings": " ".join(f"{each.rstrip('.')}." for each in told)},
                boxes=tuple(dict.fromkeys(each.box for each in here)),
                size_px=first.size_px,
            )

    def _split(self, annotation: Annotation) -> Split | None:
        if self.config.split == "drawn" or not annotation.split:
            return None
        cells = {"split": annotation.split}
        return split_in(Row(self.tables()[0], annotation.line, cells), "split")


def _ids(annotation: Annotation) -> tuple[str, str, str]:
    """(Folder, patient, study) of an image's path."""
    found = _PATH.fullmatch(annotation.path)
    if found is not None and PurePosixPath(annotation.path).stem != annotation.dicom_id:
        raise InputError(
            f"{annotation.where}: dicom_id {annotation.dicom_id!r} is not that of the path "
            f"{annotation.path!r}: fetch the table again"
        )
    if found is None:
        raise InputError(
            f"{annotation.where}: path {annotation.path!r}: expected "
            "files/p10/p10000032/s50414267/<dicom_id>.jpg, as in MIMIC-CXR-JPG: fetch the table "
            "again"
        )
    return found[1], found[2], found[3]
