"""Folders: what is below one, and whether one can be written into, before anything is made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    """The files below `folder` with one of the suffixes (lower case), each folder's in order.

    Links to folders are followed, and no folder is read twice, whatever leads to it. Files that
    macOS leaves beside others ("._a.png") are none. Nothing where there is no such folder.
    """
    read: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        known = Path(place).stat()
        if (known.st_dev, known.st_ino) in read:
            folders.clear()
            continue
        read.add((known.st_dev, known.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in suffixes and not name.startswith("._"):
                yield path


def what_is_no_folder(path: Path) -> str:
    """What stands where a folder at `path` is to be, or to be made; empty when one can be."""
    for each in (path, *path.parents):
        name = "it" if each == path else str(each)
        if each.is_symlink() and not each.exists():
            return f"{name} is a link to {each.readlink()}, which is not there"
        if each.exists():
            return "" if each.is_dir() else f"{name} is a file"
    return ""
