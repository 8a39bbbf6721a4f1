"""OpenI's reports: XML in a tar or a folder, or the rows of Kaggle's table."""

from __future__ import annotations

import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from xml.etree import ElementTree

from data_shards.errors import InputError
from data_shards.files.folders import files_below
from data_shards.sources.formats.tables import read_rows
from data_shards.sources.formats.web_tars import refuse_no_end

XML = frozenset({".xml"})
SECTIONS = ("comparison", "indication", "findings", "impression")
_COLUMNS = ("uid", "MeSH", *SECTIONS)
_NORMAL = "normal"
_AGAIN = "fetch it again"


@dataclass(frozen=True, slots=True)
class OpeniReport:
    """One report, of a line of `table` or, line 0, all of it.

    `images` are ids of the XML; None where another table has them. `labels` are the main headings
    of MeSH, and `normal` (1 or 0).
    """

    table: str
    line: int
    uid: str
    texts: Mapping[str, str]
    labels: Mapping[str, float | None]
    images: tuple[str, ...] | None

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.table}: line {self.line}" if self.line else self.table


def read_reports(path: Path) -> Sequence[OpeniReport]:
    """All reports, in the order of their numbers.

    Raises InputError for a path that holds none, a tar that was cut, XML that is damaged or has an
    entity of its own, a text without label, an id that is there twice.
    """
    if path.is_dir():
        members: Iterator[tuple[str, bytes]] = (
            (str(each), each.read_bytes()) for each in files_below(path, XML)
        )
        reports = [_of_xml(where, content) for where, content in members]
    elif path.name.removesuffix(".gz").endswith((".csv", ".tsv")):
        reports = list(_of_table(path))
    else:
        reports = [_of_xml(where, content) for where, content in _members(path)]
    if not reports:
        raise InputError(f"{path}: no XML of a report in it: {_AGAIN}")
    [(uid, times)] = Counter(each.uid for each in reports).most_common(1)
    if times > 1:
        where = [each.where for each in reports if each.uid == uid]
        raise InputError(f"{where[1]}: report {uid} is also in {where[0]}: remove one of them")
    return sorted(reports, key=lambda each: (len(each.uid), each.uid))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file: set source.reports to NLMCXR_reports.tgz, its folder of XML or "
            "indiana_reports.csv"
        )
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                # macOS leaves files of its own beside others.
                if not member.name.endswith(".xml") or Path(member.name).name.startswith("._"):
                    continue
                file = archive.extractfile(member)
                if file is None:
                    raise InputError(f"{path}/{member.name}: not a plain file: {_AGAIN}")
                yield f"{path}/{member.name}", file.read()
            assert archive.fileobj is not None
            refuse_no_end(cast(IO[bytes], archive.fileobj), archive.offset, blocks=2)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: not a sound tar ({error}): {_AGAIN}") from error


def _of_xml(where: str, content: bytes) -> OpeniReport:
    # Entities that refer to each other may grow without bounds; the archive has none.
    if b"<!ENTITY" in content or b"<!DOCTYPE" in content:
        raise InputError(f"{where}: XML with entities of its own, which are not read: {_AGAIN}")
    try:
        root = ElementTree.fromstring(content)
    # The latter two where it names an encoding that there is not, or one that is not read.
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{where}: damaged XML ({error}): {_AGAIN}") from error
    found = root.find("uId")
    uid = "" if found is None else found.get("id", "").strip()
    if not uid:
        raise InputError(f"{where}: no uId, the report's id: {_AGAIN}")
    texts = dict.fromkeys(SECTIONS, "")
    for element in root.iter("AbstractText"):
        label = element.get("Label", "").strip().lower()
        if label not in texts:
            expected = ", ".join(SECTIONS).upper()
            raise InputError(
                f"{where}: AbstractText of Label {label.upper()!r}: expected {expected}: {_AGAIN}"
            )
        text = "".join(element.itertext()).strip()
        texts[label] = " ".join(filter(None, (texts[label], text)))
    majors = ["".join(each.itertext()) for each in root.iterfind("MeSH/major")]
    images = tuple(each.get("id", "").strip() for each in root.iter("parentImage"))
    if not all(images):
        raise InputError(f"{where}: a parentImage without id: {_AGAIN}")
    return OpeniReport(where, 0, uid, texts, _labels(majors), images)


def _of_table(path: Path) -> Iterator[OpeniReport]:
    for row in read_rows(path, _COLUMNS):
        texts = {name: row.text(name) for name in SECTIONS}
        labels = _labels(row["MeSH"].split(";"))
        uid = f"CXR{row.filled('uid')}"
        yield OpeniReport(str(row.path), row.line, uid, texts, labels, None)


def _labels(majors: Sequence[str]) -> dict[str, float | None]:
    """1 for each main heading ("Opacity" of "Opacity/lung/base"), and whether all is normal."""
    headings = {major.strip().partition("/")[0].strip() for major in majors} - {""}
    labels: dict[str, float | None] = {
        each: 1.0 for each in sorted(headings) if each.lower() != _NORMAL
    }
    if headings:
        labels[_NORMAL] = float(not labels)
    return labels
