"""What one sample of a shard is: a study with its images, report, labels, boxes and masks.

A `Sample` is what a source yields (paths of the originals); a `StudyRecord` is what
the shard stores as `<key>.json`, beside `<key>.image0.jpg`, `<key>.image1.jpg` ... and
`<key>.mask_<class>.png`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from pydantic import TypeAdapter, ValidationError

from data_shards.records.documents import place_and_reason
from data_shards.records.fields import FileName, Finite, FiniteNotNegative, Name, Side

Split = Literal["train", "validate", "test"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")

View = Literal["PA", "AP", "L"]
FRONTAL_VIEWS: frozenset[str] = frozenset({"PA", "AP"})


@dataclass(frozen=True, slots=True)
class Report:
    """A radiology report: raw text, sections by normalised name, and the sentences of each."""

    raw: str
    sections: dict[str, str]
    sentences: dict[str, tuple[str, ...]]


# Of a data set that has labels, boxes or masks alone.
NO_REPORT = Report(raw="", sections={}, sentences={})


class ImageFile(Protocol):
    """What an image or mask is read from, and by its `str` named in messages; a `Path` is one."""

    def stat(self) -> os.stat_result:
        """Size and kind. Raises OSError where it is not there."""

    def read_bytes(self) -> bytes:
        """All that it holds."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a study where the archive keeps it. `view` is None when unknown.

    `listed` is the file and line that name it, for messages. `size_px` is the width and height
    that boxes were drawn on, where a table says it.
    """

    id: str
    path: ImageFile
    view: View | None
    listed: str = ""
    size_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels of image number `image` (x, y: upper left corner).

    In a `Sample` the pixels are the original's, in a `StudyRecord` the stored image's.
    """

    image: int
    x: Finite
    y: Finite
    width: FiniteNotNegative
    height: FiniteNotNegative
    category: str
    phrase: str = ""

    def meets(self, width: int, height: int) -> bool:
        """Whether some of the box lies in an image of this size."""
        across = self.x < width and self.x + self.width > 0
        return across and self.y < height and self.y + self.height > 0


@dataclass(frozen=True, slots=True)
class SourceMask:
    """A binary mask (non-zero = inside) of image number `image`, same size as the original.

    Several of one category are parts of one. `listed` is what names it, for messages.
    """

    image: int
    category: str
    path: ImageFile
    listed: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One study as a source yields it. `split` None: the builder draws one by patient."""

    patient_id: str
    study_id: str
    images: tuple[SourceImage, ...]
    report: Report
    split: Split | None = None
    labels: dict[str, float | None] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    masks: tuple[SourceMask, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One stored image: member `image<n>.jpg`; sizes in pixels, stored and original."""

    id: str
    view: View | None
    member: FileName
    width: Side
    height: Side
    original_width: Side
    original_height: Side


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One stored mask: member `mask_<category>.png` (`image` says which image it covers)."""

    image: int
    category: str
    member: FileName


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """The `<key>.json` member of a shard."""

    key: Name
    patient_id: Name
    study_id: Name
    split: Split
    source: str
    licence: str
    images: tuple[ImageRecord, ...]
    report: Report
    labels: dict[str, Finite | None]
    boxes: tuple[Box, ...]
    masks: tuple[MaskRecord, ...]

    def to_json(self) -> bytes:
        """The content of `<key>.json`."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> StudyRecord:
        """The record of a `<key>.json`.

        Raises ValueError, with field and reason, when it is malformed or contradicts itself.
        """
        try:
            record = _RECORD.validate_json(payload, strict=True)
        except ValidationError as error:
            place, reason = place_and_reason(error)
            raise ValueError(f"{place}: {reason}" if place else reason) from error
        for wrong in record._contradictions():
            raise ValueError(wrong)
        return record

    def _contradictions(self) -> Iterator[str]:
        members = [image.member for image in self.images] + [mask.member for mask in self.masks]
        if len(set(members)) < len(members):
            member, times = Counter(members).most_common(1)[0]
            yield f"{member}: the member of {times} images and masks"
        if not self.images:
            yield "images: none"
        for what, drawn in (("box", self.boxes), ("mask", self.masks)):
            for each in drawn:
                if not 0 <= each.image < len(self.images):
                    yield f"a {what} of image {each.image}, where there are {len(self.images)}"
                    return
        for box in self.boxes:
            image = self.images[box.image]
            if not box.meets(image.width, image.height):
                yield f"a box of {box.category!r} outside of {image.member}"

    def frontal_images(self) -> tuple[int, ...]:
        """Positions of the frontal (PA, AP) images, ordered by image id."""
        return self._positions(FRONTAL_VIEWS)

    def lateral_images(self) -> tuple[int, ...]:
        """Positions of the lateral images, ordered by image id."""
        return self._positions(frozenset({"L"}))

    def _positions(self, views: frozenset[str]) -> tuple[int, ...]:
        matching = (i for i, image in enumerate(self.images) if image.view in views)
        return tuple(sorted(matching, key=lambda i: self.images[i].id))


_RECORD = TypeAdapter(StudyRecord)
