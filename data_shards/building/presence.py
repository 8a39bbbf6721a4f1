"""Which images of a source are there, told by folder rather than file by file."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import MISSING_IMAGE, InputError
from data_shards.sources.base import Source

# Sets with more folders (MIMIC-CXR has one a study) are looked at in as many, spread over them.
MOST_FOLDERS = 1000
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Presence:
    """How many images were looked for, and those that are not there, as tables name them."""

    looked_for: int
    listed: int
    missing: tuple[str, ...]

    def told(self) -> str:
        """In words, with the first ones."""
        names = ", ".join(self.missing[:_SHOWN]) + (", ..." if len(self.missing) > _SHOWN else "")
        return f"{len(self.missing):,} of {self.looked_for:,} images are missing (first: {names})"


def look_for_images(source: Source) -> Presence:
    """Which images that the tables name are files: of all of them, or of `MOST_FOLDERS` folders.

    Images inside tars are there.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    listed = 0
    for rows in source.studies.values():
        for row in rows:
            listed += 1
            file = source.file_of(row)
            if isinstance(file, Path):
                by_folder[str(file.parent)].append(file.name)
    folders = sorted(by_folder)
    spread = folders[:: -(-len(folders) // MOST_FOLDERS) or 1]
    missing = []
    for folder in spread:
        try:
            there = {each.name for each in os.scandir(folder)}
        except OSError:
            there = set()
        missing += [f"{folder}/{name}" for name in by_folder[folder] if name not in there]
    return Presence(sum(len(by_folder[each]) for each in spread), listed, tuple(missing))


def refuse_half_a_folder(source: Source) -> None:
    """Raise InputError where several images are missing, with how many of how many.

    A single one is left to whoever opens it, who can say why.
    """
    found = look_for_images(source)
    if len(found.missing) > 1:
        raise InputError(
            f"{found.missing[0]}: {MISSING_IMAGE}: {found.told()}: fetch the rest (check "
            f"{source.images_placed_by}), or go on without them by missing_images=drop"
        )
