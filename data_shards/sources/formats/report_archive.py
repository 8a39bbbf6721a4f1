"""MIMIC-CXR's report texts, in the zip file as published or unpacked."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from data_shards.errors import InputError


class BadReportError(Exception):
    """A report that is absent or cannot be read; the message says why."""


class ReportArchive:
    """Report texts by path below the archive (`files/p10/p10000032/s50414267.txt`).

    Opened by the process that reads. Raises InputError for a zip file that is broken or holds a
    report twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(
                f"{path}: not a readable zip file ({error}): fetch it again"
            ) from error
        [(name, count)] = Counter(self._zip.namelist()).most_common(1) or [("", 0)]
        if count > 1:
            raise InputError(f"{path}: holds {name} more than once: keep one report of each study")

    def read(self, member: PurePosixPath) -> str:
        """The text of one report. Raises BadReportError."""
        try:
            if self._zip is None:
                payload = (self.path / member).read_bytes()
            else:
                payload = self._zip.read(str(member))
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
        if self._zip is None:
            return ""
        members = self._zip.infolist()
        listed = sorted((member.filename, member.file_size, member.CRC) for member in members)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def find_reports(root: Path, reports: Path | None) -> ReportArchive:
    """The archive `reports` names, or else the one in or beside `root`.

    Raises InputError that lists the places when there is none.
    """
    names = ("mimic-cxr-reports.zip", "mimic-cxr-reports")
    beside = [folder / name for folder in (root, root.parent) for name in names]
    places = beside if reports is None else [reports]
    for place in places:
        if place.is_file() or (place / "files").is_dir():
            return ReportArchive(place)
    raise InputError(
        f"no reports at {' or '.join(str(place) for place in places)}: set source.reports to "
        "mimic-cxr-reports.zip, or to the folder that holds its files/"
    )
