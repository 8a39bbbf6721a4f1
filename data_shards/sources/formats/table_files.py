"""Files of tables opened as text, and refused by their cause where they are none."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from data_shards.errors import InputError

_GZIP = b"\x1f\x8b"
_WANT_A_MARK = ("utf-16", "utf-32")
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
_AS_CSV = "save it as CSV"
# What else is taken for a table, by its first bytes.
_OTHERS: dict[bytes, tuple[str, str]] = {
    rb"PK\x03\x04.{0,1900}?(\[Content_Types\]|xl/|_rels/)": ("an Excel workbook", _AS_CSV),
    rb"PK\x03\x04.{0,40}mimetype": ("an OpenDocument file", _AS_CSV),
    rb"PK\x03\x04": ("a zip archive", "unpack it"),
    rb"\xd0\xcf\x11\xe0": ("an old Excel workbook", _AS_CSV),
    rb"PAR1": ("a Parquet file", "name it .parquet"),
    rb"ARROW1|FEA1": ("an Arrow (Feather) file", f"{_AS_CSV} or JSON lines"),
    rb"SQLite format 3": ("an SQLite database", _AS_CSV),
    rb"\x89HDF": ("an HDF5 file", _AS_CSV),
    rb"\x80[\x02-\x05]": ("a Python pickle, which is never opened", _AS_CSV),
    rb"RD[AX][23]\n": ("an R data file", _AS_CSV),
    rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf": ("a compressed file", "unpack it, or use gzip"),
    rb"%PDF": ("a PDF", _AS_CSV),
    rb"\{\\rtf": ("an RTF document", _AS_CSV),
    rb"\x89PNG|\xff\xd8\xff|II\x2a\x00|MM\x00\x2a": ("an image", "name the table"),
    rb"version https://git-lfs": ("a Git LFS pointer", "run git lfs pull"),
    rb"\s*<(!doctype|html|\?xml|head|body|table|meta|style)": (
        "a web page or XML",
        "fetch the table itself",
    ),
}
_HEAD_BYTES = 2048


@contextmanager
def open_table(path: Path, encoding: str | None) -> Iterator[IO[str]]:
    """The text of the table at `path`, line ends as they are, unpacked when it is gzip.

    A mark at its beginning decides the encoding, otherwise `encoding` does; None is UTF-8, of a
    data set where no setting says another. Raises InputError for what is no text, or none in that
    encoding, with the line.
    """
    if not path.is_file():
        what = "no such table"
        if path.exists():
            what = "a folder" if path.is_dir() else "no file"
        raise InputError(f"{path}: {what}: check the path in the profile")
    try:
        with _unpacked(path) as file:
            head = file.read(_HEAD_BYTES)
        used = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        if used is None:
            _refuse_no_text(path, head, encoding)
            # Decoders say so by another error in each release of Python.
            if encoding is not None and codecs.lookup(encoding).name in _WANT_A_MARK:
                raise InputError(_not_text(path, encoding, "no mark at its beginning"))
        with _unpacked(path) as file:
            yield io.TextIOWrapper(file, encoding=used or encoding or "utf-8", newline="")
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path}: the gzip file is damaged ({error}): fetch it again") from error
    except UnicodeDecodeError as error:
        raise InputError(_undecodable(path, error, settable=encoding is not None)) from error
    except UnicodeError as error:
        raise InputError(_not_text(path, encoding, str(error))) from error


def _unpacked(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        is_gzip = path.suffix == ".gz" or file.read(len(_GZIP)) == _GZIP
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip else path.open("rb")


def _refuse_no_text(path: Path, head: bytes, encoding: str | None) -> None:
    if not head.strip():
        raise InputError(f"{path}: an empty file: fetch or write it again")
    for pattern, (what, remedy) in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise InputError(f"{path}: {what}, not a table of text: {remedy}")
    if not head.strip(b"\0"):
        raise InputError(f"{path}: begins with NUL bytes alone: fetch it again")
    even, odd = (half.count(0) / len(half) for half in (head[::2], head[1::2] or b"x"))
    if min(even, odd) < 0.01 and max(even, odd) > 0.1 and encoding in (None, "utf-8"):
        name = "utf-16-le" if odd > even else "utf-16-be"
        setting = f", or set source.encoding={name}" if encoding else ""
        raise InputError(f"{path}: UTF-16 text without a mark?: save it as UTF-8{setting}")


def _not_text(path: Path, encoding: str | None, why: str) -> str:
    return (
        f"{path}: not {encoding} text ({why}): set source.encoding to what it is written in, for "
        "UTF-16 without a mark utf-16-le or utf-16-be"
    )


def _undecodable(path: Path, error: UnicodeDecodeError, *, settable: bool) -> str:
    """What is not in its encoding; the line is looked for, for decoders read in blocks."""
    with _unpacked(path) as file:
        lines = io.TextIOWrapper(file, encoding=error.encoding, errors="replace")
        line = next((n for n, text in enumerate(lines, start=1) if "\ufffd" in text), 1)
    is_utf_8 = error.encoding == "utf-8"
    if error.reason == "truncated data":
        return f"{path}: line {line}: ends within a character: fetch the table again"
    guess = ": Windows-1252?" if is_utf_8 else ":"
    name = "windows-1252" if is_utf_8 else "..."
    setting = f", or set source.encoding={name}" if settable else ""
    return (
        f"{path}: line {line}: byte {error.object[error.start]:#04x} is not "
        f"{error.encoding.upper()} text{guess} Save the table as UTF-8{setting}"
    )
