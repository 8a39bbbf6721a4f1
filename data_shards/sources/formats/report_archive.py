"""MIMIC-CXR's report texts, in the zip file as published or unpacked."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from data_shards.errors import InputError


class BadReportError(Exception):
    """A report that is absent or cannot be read; the message says why."""


class ReportArchive:
    """Report texts by path below the archive (`files/p10/p10000032/s50414267.txt`).

    The zip file is opened by the process that reads, once: neither a pickle nor a fork shares
    its file position.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path = path
        self._opened = None

    def read(self, member: PurePosixPath) -> str:
        """The text of one report. Raises BadReportError, or InputError for a broken zip."""
        try:
            payload = self._read_bytes(member)
        except (KeyError, FileNotFoundError) as error:
            raise BadReportError("no report in the archive") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise BadReportError("the report is damaged") from error
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadReportError("the report is not UTF-8 text") from error
        if not text.strip():
            raise BadReportError("the report is empty")
        return text

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and CRC-32s in the zip file's directory.

        Empty for an unpacked folder: to read MIMIC-CXR's 227,835 files takes minutes, and file
        times lie. Reports edited there go unnoticed.
        """
        if self.path.is_dir():
            return ""
        members = self._zip_file().infolist()
        listed = sorted((member.filename, member.file_size, member.CRC) for member in members)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    def _read_bytes(self, member: PurePosixPath) -> bytes:
        if self.path.is_dir():
            return (self.path / member).read_bytes()
        return self._zip_file().read(str(member))

    def _zip_file(self) -> zipfile.ZipFile:
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                opened = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise InputError(
                    f"{self.path}: not a readable zip file ({error}): fetch it again"
                ) from error
            names = opened.namelist()
            if len(set(names)) < len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                raise InputError(
                    f"{self.path}: holds {twice} more than once: keep one report of each study"
                )
            self._opened = (os.getpid(), opened)
        return self._opened[1]


def find_reports(root: Path, reports: Path | None) -> ReportArchive:
    """The archive `reports` names, or else the one in or beside `root`.

    Raises InputError that lists the places when there is none.
    """
    if reports is not None:
        places = [reports]
    else:
        places = [
            folder / name
            for folder in (root, root.parent)
            for name in ("mimic-cxr-reports.zip", "mimic-cxr-reports")
        ]
    for place in places:
        if place.is_file() or (place / "files").is_dir():
            return ReportArchive(place)
    raise InputError(
        f"no reports at {' or '.join(str(place) for place in places)}: set source.reports to "
        "mimic-cxr-reports.zip, or to the folder that holds its files/"
    )
