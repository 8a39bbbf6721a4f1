"""Paths of images as tables write them: what cannot be meant, and why a file may be missing."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from data_shards.errors import InputError
from data_shards.records.study import SourceImage, SourceMask
from data_shards.sources.formats.tables import Row
from data_shards.written import what_elsewhere

_SEVERAL = re.compile(r"\.\w{3,4}['\"]?\s*[;|,]")


class ImagePath(NamedTuple):
    """Where the file lies, and the one name that all ways to write it have in common."""

    file: Path
    id: str


def image_path(row: Row, column: str, root: Path) -> ImagePath:
    """The path that a cell says, below `root` or whole.

    Its id is the path from `root` on, or as a whole where it lies elsewhere, without `.` and `..`.
    Raises InputError, with the line, for an empty cell, a URL and a path of Windows.
    """
    value = row.filled(column)
    elsewhere = what_elsewhere(value)
    if elsewhere == "a URL":
        raise InputError(
            f"{row.where}: {value} is a URL: fetch the image, and write its path below the folder "
            "of images"
        )
    path = PurePosixPath(value)
    if "\\" in value:
        windows = "has backslashes, as paths of Windows have"
    else:
        windows = "is a path of Windows" if elsewhere or value.startswith("//") else ""
    if windows and not (root / path).exists():
        raise InputError(f"{row.where}: {value!r} {windows}: write the path below {root} with /")
    file = root / path
    if path.is_absolute() or ".." in path.parts:
        # As it is spelled: a link may well lead out of the folder.
        whole, folder = (Path(os.path.normpath(Path.cwd() / each)) for each in (file, root))
        path = PurePosixPath(whole.relative_to(folder) if whole.is_relative_to(folder) else whole)
    return ImagePath(file, str(path))


def told_with_its_row(error: InputError, image: SourceImage | SourceMask) -> InputError:
    """The same trouble, with the row that names the file and why it may be missing."""
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
        bare = path.name.strip("'\"\u2018\u2019\u201c\u201d")
        if bare != path.name and (path.parent / bare).exists():
            return f" ({bare!r} is there: write it without quotes)"
        lost = path
        while not lost.parent.exists():
            lost = lost.parent
        names = sorted(each.name for each in lost.parent.iterdir()) if lost.parent.is_dir() else []
    except OSError:
        return ""
    if lost.name == "~" or lost.name.startswith("$"):
        return f" ({lost.name} is not filled in within tables: write the path)"
    for name in names:
        if _composed(name) == _composed(lost.name):
            forms = f"the table has {_form(lost.name)}, the folder {_form(name)}"
            return f" ({name!r} is there in another Unicode form: {forms}: write both alike)"
    for name in names:
        if _composed(name).casefold() == _composed(lost.name).casefold():
            return f" ({name!r} is there: mind upper and lower case)"
    for name in names if lost == path else ():
        if Path(name).stem == path.name:
            return f" ({name!r} is there: add the suffix)"
        if Path(name).stem == path.stem:
            return f" ({name!r} is there: another suffix?)"
    return ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _form(name: str) -> str:
    """Of letters with marks: NFC is one character for both, NFD, which macOS writes, two."""
    for form in ("NFC", "NFD"):
        if unicodedata.is_normalized(form, name):
            return form
    return "neither NFC nor NFD"
