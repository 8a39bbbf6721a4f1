"""Folders to write into, looked at before anything is made."""

from __future__ import annotations

from pathlib import Path


def what_is_no_folder(path: Path) -> str:
    """What stands where a folder at `path` is to be, or to be made; empty when one can be."""
    for each in (path, *path.parents):
        name = "it" if each == path else str(each)
        if each.is_symlink() and not each.exists():
            return f"{name} is a link to {each.readlink()}, which is not there"
        if each.exists():
            return "" if each.is_dir() else f"{name} is a file"
    return ""
