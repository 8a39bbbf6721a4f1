"""Paths of images as tables write them: what cannot be meant, and why a file may be missing."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from data_shards.errors import InputError
from data_shards.records.study import SourceImage
from data_shards.sources.formats.tables import Row

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SEVERAL = re.compile(r"\.\w{3,4}['\"]?\s*[;|,]")


def image_path(row: Row, column: str, root: Path) -> PurePosixPath:
    """The path that a cell says, below `root` or whole.

    Raises InputError, with the line, for an empty cell, a URL, and backslashes that separate
    folders.
    """
    value = row.filled(column)
    if _URL.match(value):
        raise InputError(
            f"{row.where}: {value} is a URL: fetch the image, and write its path below the folder "
            "of images"
        )
    path = PurePosixPath(value)
    if "\\" in value and not (root / path).exists():
        raise InputError(
            f"{row.where}: {value!r} has backslashes, as paths of Windows have: write the path "
            f"below {root} with /"
        )
    return path


def told_with_its_row(error: InputError, image: SourceImage) -> InputError:
    """The same trouble, with the row that names the image and why the file may be missing."""
    if not image.listed or str(error).startswith(image.listed):
        return error
    why = _why_missing(image.path) if isinstance(image.path, Path) else ""
    return InputError(f"{image.listed}: {error}{why}")


def _why_missing(path: Path) -> str:
    """What lies there in place of a missing file, as the end of a line; empty where none is."""
    try:
        if path.exists():
            return ""
        if _SEVERAL.search(path.name):
            return " (several paths in one cell? Give each image a row of its own)"
        if (path.parent / unquote(path.name)).exists():
            return f" ({unquote(path.name)!r} is there: write blanks and the like as they are)"
        names = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        return ""
    for name in sorted(names):
        if name.casefold() == path.name.casefold():
            return f" ({name!r} is there: mind upper and lower case)"
    for name in sorted(names):
        if Path(name).stem == path.name:
            return f" ({name!r} is there: add the suffix)"
        if Path(name).stem == path.stem:
            return f" ({name!r} is there: another suffix?)"
    return ""
