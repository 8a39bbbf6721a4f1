"""Folders of images, listed once: where each lies by its name, whatever folders are between.

And what the files of DICOM sets say that their tables do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.folders import files_below
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import SourceImage
from data_shards.sources.values import VIEWS


def files_by_stem(folders: Iterable[Path], suffixes: frozenset[str]) -> dict[str, Path]:
    """What `files_below` finds in `folders`, by name without suffix.

    Raises InputError for a folder that is not there, and for two files of one name.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder: check where the profile says images lie")
        for path in files_below(folder, suffixes):
            other = found.setdefault(path.stem, path)
            if other is not path:
                raise InputError(
                    f"{path}: {other} has the same name: keep one of the two in the folder"
                )
    return found


def placed(name: str, files: dict[str, Path], folder: Path, suffix: str) -> str:
    """Where the image of this name lies, or would lie if it were there."""
    return str(files.get(name, folder / f"{name}{suffix}"))


def unnamed(files: Iterable[str], named: Iterable[str], table: str) -> tuple[DroppedSample, ...]:
    """The images of the folders that no row names: left out, counted. Many: `table` may be cut."""
    lost = sorted(set(files).difference(named))
    return tuple(DroppedSample(key=name, reason=f"not in the table of {table}") for name in lost)


def with_views_of_headers(images: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """The images by the views that their DICOM headers name; others keep what the set says."""
    # Decoders are not needed to read a profile.
    from data_shards.images.dicom import view_position

    return tuple(
        replace(image, view=VIEWS.get(view_position(image.path).strip().upper(), image.view))
        if isinstance(image.path, Path)
        else image
        for image in images
    )
