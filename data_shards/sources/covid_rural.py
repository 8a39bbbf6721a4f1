"""COVID Rural: X-rays with masks of opacities, of 105 patients.

<root>/jpgs/COVID-19-AR-16406541_01-19-2012-....jpg      patient before the first underscore
<root>/pngs_masks/<same name>.png                        values 0 and 1

There is no table. Images without a mask are left out, as by LoVT.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.image_files import files_by_stem, placed
from data_shards.sources.image_row import ImageRow, ListedMask
from data_shards.sources.values import VIEWS

IMAGES_NAME = "jpgs"
MASKS_NAME = "pngs_masks"
LABEL = "Opacity"


class CovidRuralConfig(SourceConfig):
    """`root` is the folder covid_rural_annot, which holds `jpgs` and `pngs_masks`."""

    name: Literal["covid_rural"] = "covid_rural"
    licence: str = "CC BY 4.0"
    root: Path

    def open(self) -> CovidRuralSource:
        """The images with masks."""
        return CovidRuralSource(self)


class CovidRuralSource(Source):
    """One study an image, named by its file."""

    config: CovidRuralConfig
    views = VIEWS
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """None: names of files say all."""
        return ()

    def rows(self) -> Iterator[ImageRow]:
        """The images with masks, by name. Raises InputError for names without a patient."""
        if not self._images:
            raise InputError(
                f"{self.config.root / IMAGES_NAME}: no JPEG in this folder: set source.root to "
                "covid_rural_annot"
            )
        if not self._images.keys() & self._masks.keys():
            raise InputError(
                f"{self.config.root / MASKS_NAME}: no mask has the name of an image: fetch it again"
            )
        # An image that only its mask names is one that is missing.
        for name, mask in sorted(self._masks.items()):
            patient, underscore, _ = name.partition("_")
            if not (patient and underscore):
                raise InputError(
                    f"{mask}: no patient before an underscore in its name: name it as published"
                )
            path = placed(name, self._images, self.config.root / IMAGES_NAME, ".jpg")
            yield ImageRow(
                0,
                name,
                path,
                patient_id=patient,
                study_id=name,
                view="FRONTAL",
                labels={LABEL: 1.0},
                masks=(ListedMask(LABEL, mask),),
                table=path,
            )

    def fingerprint(self) -> str:
        """A digest of the names and sizes of the masks."""
        sizes = {name: path.stat().st_size for name, path in self._masks.items()}
        return hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images without a mask."""
        bare = sorted(self._images.keys() - self._masks.keys())
        return tuple(DroppedSample(key=name, reason="no mask") for name in bare)

    @cached_property
    def _images(self) -> dict[str, Path]:
        folder = self.config.root / IMAGES_NAME
        return files_by_stem([folder], frozenset({".jpg", ".jpeg"}))

    @cached_property
    def _masks(self) -> dict[str, Path]:
        return files_by_stem([self.config.root / MASKS_NAME], frozenset({".png"}))
