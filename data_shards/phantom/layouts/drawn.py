"""A study drawn and reported, and how layouts write files: the same bytes on every machine."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.images.findings import Category
from data_shards.phantom.images.rendering import FindingBox, RenderedStudy, render_study
from data_shards.phantom.reports.report_writer import WrittenReport, write_report
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

# Rows by table: plain lists, which are kept as JSON while an archive is being drawn.
Rows: TypeAlias = dict[str, list[list[Any]]]

# The largest prime below 10^7: multiplying by a number below it permutes the ids.
_IDS = 9_999_991


@dataclass(frozen=True, eq=False)
class DrawnStudy:
    """The images, masks and boxes of a study, and its report."""

    study: Study
    rendered: RenderedStudy
    report: WrittenReport

    def boxes_of(self, *categories: Category) -> tuple[FindingBox, ...]:
        """Those of findings of these categories, on the frontal."""
        findings = self.study.findings
        return tuple(
            box for box in self.rendered.boxes if findings[box.finding].category in categories
        )

    def mask_of(self, *categories: Category) -> Bool[ndarray, "height width"]:
        """The union of these categories' masks, on the frontal."""
        union = np.zeros(self.rendered.frontal.shape, dtype=bool)
        for category in categories:
            if category in self.rendered.masks:
                union |= self.rendered.masks[category]
        return union


def draw_study(config: PhantomConfig, study: Study) -> DrawnStudy:
    """The study by (seed, study number) alone."""
    return DrawnStudy(
        study,
        render_study(study, seed=config.seed, height_px=config.image_size_px, noise=config.noise),
        write_report(
            study,
            np.random.default_rng([config.seed, study.number, 2]),
            place_words=config.world.place_words,
        ),
    )


def permuted(seed: int, number: int, kind: str) -> int:
    """A number below 10^7 in place of another: different ones stay different."""
    digest = hashlib.blake2b(f"{seed}/{kind}".encode(), digest_size=16).digest()
    factor = 1 + int.from_bytes(digest[:8], "big") % (_IDS - 1)
    shift = int.from_bytes(digest[8:], "big") % _IDS
    return (number * factor + shift) % _IDS


def hexadecimal(digits: int, *said: object) -> str:
    """So many hexadecimal digits out of what is said."""
    text = "/".join(map(str, said)).encode()
    return hashlib.blake2b(text, digest_size=-(-digits // 2)).hexdigest()[:digits]


def encoded(pixels: UInt8[ndarray, "height width *channels"], kind: str, **options: Any) -> bytes:
    """An image file of the kind that Pillow calls so."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write_file(path: Path, content: bytes) -> None:
    """One of thousands: a sync of each would take longer than drawing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, content, sync=False)


def csv_bytes(header: str, rows: Iterable[list[Any]]) -> bytes:
    """A table with this header and the rows in the order of their cells."""
    text = io.StringIO()
    text.write(f"{header}\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(sorted(rows, key=lambda row: [str(cell) for cell in row]))
    return text.getvalue().encode()
