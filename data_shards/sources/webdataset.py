"""Tars in WebDataset's naming that others wrote: images with a text or a JSON member each."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import ImageFile, Split, View
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.tables import Row
from data_shards.sources.formats.web_tars import (
    TarMember,
    TarSample,
    no_tar,
    read_samples,
)
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import VIEWS, split_in

_IMAGES = ("jpg", "jpeg", "png", "tif", "tiff", "bmp")
_TEXTS = ("report", "findings", "impression")


class WebDatasetFields(Config):
    """Names of fields of each sample's JSON member; None: there is no such field.

    Without `report`, `findings` and `impression` the report is the sample's txt member. Without
    `study_id` every sample is a study, named by its key.
    """

    report: str | None = None
    findings: str | None = None
    impression: str | None = None
    patient_id: str | None = None
    study_id: str | None = None
    view: str | None = None
    split: str | None = None


class WebDatasetConfig(SourceConfig):
    """A folder of tars, and what the members of their samples mean.

    `tars` is a pattern of names in `folder`. `images` are the members that count as images, by what
    follows the key: a name or a suffix. Whose a sample is says the group of the expression
    `patient_pattern` in its key ('(.+)' where each has a patient of its own), or, without one,
    `fields.patient_id`. With `split_by_tar_name` the letters that a tar's name starts with are the
    split (train-000.tar).
    `default_view` is the view of images without one.
    """

    name: Literal["webdataset"] = "webdataset"
    licence: str = "unknown"
    folder: Path
    tars: str = "*.tar"
    images: tuple[str, ...] = _IMAGES
    fields: WebDatasetFields = WebDatasetFields()
    patient_pattern: str | None = None
    split_by_tar_name: bool = False
    default_view: View | None = None

    @field_validator("patient_pattern")
    @classmethod
    def _has_one_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError("put the patient's part of the key in brackets, once: 'p([0-9]+)_.*'")
        return value

    @model_validator(mode="after")
    def _check(self) -> WebDatasetConfig:
        if self.fields.patient_id is None and self.patient_pattern is None:
            raise ValueError(
                "name fields.patient_id or patient_pattern, so that no patient is in two splits "
                "(patient_pattern='(.+)' where each sample has a patient of its own)"
            )
        if self.fields.view is None and self.default_view is None:
            raise ValueError("name fields.view, or set default_view for samples without views")
        if self.split_by_tar_name and self.fields.split is not None:
            raise ValueError(
                "take the split from fields.split or from the tar's name, not from both"
            )
        return self

    def open(self) -> WebDatasetSource:
        """The studies of the tars."""
        return WebDatasetSource(self)


class WebDatasetSource(Source):
    """The images of all samples.

    Members of other kinds are counted in a side report, not read.
    """

    config: WebDatasetConfig
    views = VIEWS
    narrowed_by = ", or say by source.tars and source.images what counts"

    def tables(self) -> Sequence[Path]:
        """The tars, by name. Raises InputError for none."""
        config = self.config
        tars = tuple(path for path in sorted(config.folder.glob(config.tars)) if path.is_file())
        if not tars:
            raise InputError(no_tar(config.folder, config.tars))
        return tars

    def rows(self) -> Iterator[ImageRow]:
        """The images of each sample. Raises InputError for JSON that does not hold its fields."""
        _require_fields(self.samples, self._fields)
        if not any(map(self._images, self.samples)):
            names = sorted({name for sample in self.samples for name in sample.members})
            there = ", ".join(names)[:200] or "no members"
            raise InputError(
                f"{self.config.folder}: no image of the kinds {', '.join(self.config.images)}: "
                f"there are {there}: convert them, or correct source.tars and source.images"
            )
        for sample in self.samples:
            images = self._images(sample)
            if images:
                yield from self._rows(sample, images)

    def _rows(self, sample: TarSample, images: Mapping[str, TarMember]) -> Iterator[ImageRow]:
        fields = self._fields
        row = _SampleRow(sample.tar, 0, sample.cells(_used(fields)), sample.key)
        texts = {name: row[name] for name in _TEXTS if getattr(fields, name) is not None}
        if not texts:
            texts["report"] = sample.text("txt") if "txt" in sample.members else ""
        study = self._filled(row, sample, "study_id") if fields.study_id else sample.key
        patient, split = self._patient(row, sample), self._split(row, sample)
        for name, path in images.items():
            within = name.rpartition(".")[0]
            yield ImageRow(
                0,
                f"{sample.key}.{within}" if within else sample.key,
                str(path),
                patient_id=patient,
                study_id=study,
                view=(row["view"] if fields.view else "") or self.config.default_view or "",
                split=split,
                texts=texts,
                table=str(path),
            )

    def file_of(self, row: ImageRow) -> ImageFile:
        """Images are read out of the tars."""
        return self._places[row.path]

    def fingerprint(self) -> str:
        """A digest of names, sizes and texts: others give other shards. Images are not read."""
        rows = [image for images in self.studies.values() for image in images]
        says = sorted((Path(row.path).name, str(row.of_study), row.view) for row in rows)
        sizes = sorted(
            (path.tar.name, Path(path.name).name, path.size) for path in self._places.values()
        )
        return hashlib.sha256(json.dumps([says, sizes]).encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Those of an unknown view, and samples without an image."""
        without = [sample.key for sample in self.samples if not self._images(sample)]
        reason = "a sample without an image"
        dropped = [DroppedSample(key=key, reason=reason) for key in sorted(without)]
        return (*super().list_dropped_images(), *dropped)

    def side_reports(self) -> Mapping[str, str]:
        """How many members there are that were not read, by what follows the key."""
        read = {"json", "txt"}
        counts = Counter(
            name
            for sample in self.samples
            for name in sample.members.keys() - self._images(sample).keys() - read
        )
        if not counts:
            return {}
        return {"members_not_read.json": json.dumps(dict(sorted(counts.items())), indent=1)}

    def refuse_absent_folder(self) -> None:
        """Images lie in the tars, which have been read."""

    @property
    def _fields(self) -> WebDatasetFields:
        """Those that are read: a pattern says more of a patient than a field."""
        by_pattern = {"patient_id": None} if self.config.patient_pattern is not None else {}
        return self.config.fields.model_copy(update=by_pattern)

    @cached_property
    def samples(self) -> list[TarSample]:
        """All samples, read once a process."""
        return [sample for tar in self.tables() for sample in read_samples(tar)]

    @cached_property
    def _places(self) -> dict[str, TarMember]:
        every = (self._images(sample).values() for sample in self.samples)
        return {str(path): path for paths in every for path in paths}

    def _images(self, sample: TarSample) -> dict[str, TarMember]:
        wanted = {name.lower() for name in self.config.images}
        return {
            name: path
            for name, path in sample.members.items()
            if name in wanted or name.rpartition(".")[2] in wanted
        }

    def _patient(self, row: Row, sample: TarSample) -> str:
        pattern = self.config.patient_pattern
        if pattern is None:
            return self._filled(row, sample, "patient_id")
        found = re.fullmatch(pattern, sample.key)
        if found is None or not found[1]:
            raise InputError(
                f"{sample.where}: its key does not match source.patient_pattern={pattern!r}: "
                "correct the expression, which is held against the whole key"
            )
        return found[1]

    def _split(self, row: Row, sample: TarSample) -> Split | None:
        if self.config.split_by_tar_name:
            letters = re.match("[A-Za-z]*", sample.tar.name)
            row.cells["split"] = letters[0] if letters else ""
        elif self.config.fields.split is None:
            return None
        return split_in(row, "split")

    def _filled(self, row: Row, sample: TarSample, name: str) -> str:
        if not row[name]:
            field = getattr(self.config.fields, name)
            remedy = "fill it in"
            if name == "patient_id":
                remedy += ", or say by source.patient_pattern whose a key is"
            raise InputError(f"{sample.where}: json: {field!r} is empty: {remedy}")
        return row.filled(name)


@dataclass(frozen=True, slots=True)
class _SampleRow(Row):
    """What a sample says, by our names."""

    key: str = ""

    @property
    def where(self) -> str:
        """Tar and sample, for messages."""
        return f"{self.path}: sample {self.key}"


def _require_fields(samples: Sequence[TarSample], fields: WebDatasetFields) -> None:
    """Refuse fields that the first JSON has not; later ones may leave some out."""
    used = _used(fields).values()
    first = next((sample for sample in samples if "json" in sample.members), None)
    if not used or first is None:
        return
    values = first.fields()
    for field in used:
        if field not in values:
            found = ", ".join(values) or "none"
            raise InputError(f"{first.where}: json: no field {field!r}: there are {found:.200}")


def _used(fields: WebDatasetFields) -> dict[str, str]:
    return {name: field for name, field in fields.model_dump().items() if field is not None}
