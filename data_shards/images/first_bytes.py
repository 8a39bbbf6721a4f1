"""What a file is, told by its first bytes: a name may say anything."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from data_shards.images.refusals import RefusedError, damaged

Format: TypeAlias = Literal["JPEG", "PNG", "TIFF", "BMP", "DICOM"]
_FORMATS: dict[bytes, Format] = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II\x2a\x00": "TIFF",
    b"MM\x00\x2a": "TIFF",
    b"II\x2b\x00": "TIFF",
    b"MM\x00\x2b": "TIFF",
    b"BM": "BMP",
}
_READ = "JPEG, PNG, TIFF, BMP or DICOM image"
# The mark of a DICOM file, behind a preamble of 128 bytes of anything; and what some programs write
# without both: the first element of group 2 or 8, with its type or, implicitly, a short length.
_DICOM = slice(128, 132)
_DICOM_ELEMENT = re.compile(
    rb"[\2\10]\0[\0-\x18]\0(?:[A-Z]{2}|..\0\0)|\0[\2\10]\0[\0-\x18][A-Z]{2}", re.DOTALL
)
# What else lies in archives of images, by a pattern of its beginning.
_OTHERS = {
    rb"GIF8": "a GIF",
    rb"RIFF....WEBP": "a WebP image",
    rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51": "a JPEG 2000 image",
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "a JPEG XL image",
    rb"....ftyp": "a HEIC or AVIF image, or a film",
    rb".{344}(n\+1|ni1)\x00": "a NIfTI volume",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x89HDF": "an HDF5 file",
    rb"%PDF": "a PDF",
    rb"8BPS": "a Photoshop file",
    rb"P[1-7]\s": "a PNM image",
    rb"PK\x03\x04": "a zip archive",
    rb"\x1f\x8b": "a gzip archive",
    rb"\x00\x05\x16\x07": "a file that macOS leaves beside others ('._...')",
}
# To convert what has no picture in it does not help.
_REMEDIES = {
    "a zip archive": "unpack it",
    "a gzip archive": "unpack it",
    "a file that macOS leaves beside others ('._...')": "name the file itself",
}
_WEB_PAGE = re.compile(rb"\s*(<!doctype|<html|<\?xml|<head|<body|<error|HTTP/\d)", re.IGNORECASE)
_TEXT = re.compile(rb"[\t\n\f\r\x20-\x7e\x80-\xff]*")
_BASE64 = re.compile(rb"\s*(data:image/|iVBORw0KGgo|/9j/|SUkqA|TU0AK)")
_FETCH = "fetch the file again"
# What stands before a picture when a program added line ends, headers of HTTP or a form's boundary.
_BLANK = b" \t\r\n\0\xef\xbb\xbf"
_INSIDE = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n")
_SEARCHED_BYTES = 4096


def format_of(data: bytes) -> Format:
    """The format of a file's content. Raises RefusedError for none of the five, by its cause."""
    if has_dicom_mark(data) or _DICOM_ELEMENT.match(data):
        return "DICOM"
    for magic, kind in _FORMATS.items():
        if data.startswith(magic):
            return kind
    raise _no_picture(data)


def has_dicom_mark(data: bytes) -> bool:
    """Whether the content says of itself that it is DICOM; otherwise its first element may."""
    return data[_DICOM] == b"DICM"


def refuse_picture_behind(data: bytes, end: int) -> None:
    """Raise RefusedError where a picture's `data` end at `end` and another begins behind it."""
    behind = data[end : end + _SEARCHED_BYTES].lstrip(_BLANK)
    for magic, kind in _FORMATS.items():
        if len(magic) > 2 and behind.startswith(magic):
            raise RefusedError("a file of several pages", "split it", f"a {kind} behind its end")


def _no_picture(data: bytes) -> RefusedError:
    if not data:
        return RefusedError("an empty file", _FETCH)
    if data.startswith(b"version https://git-lfs"):
        return RefusedError("a Git LFS pointer", "run git lfs pull")
    head = data[:512].removeprefix(b"\xef\xbb\xbf")
    if b"/annex/objects/" in head:
        return RefusedError("a git-annex pointer", "run git annex get")
    for pattern, what in _OTHERS.items():
        if re.match(pattern, head, re.DOTALL):
            return RefusedError(f"{what}, not a {_READ}", _REMEDIES.get(what, "convert it"))
    if behind := _picture_behind(data):
        kind, place = behind
        what, remedy = "other bytes before the picture", "cut them off, or fetch the file again"
        return RefusedError(what, remedy, f"a {kind} from byte {place:,} on")
    if _WEB_PAGE.match(head):
        return RefusedError("a web page or an error message of a server", _FETCH)
    if not head.strip(b"\0"):
        return RefusedError("a file that begins with zeros alone", _FETCH)
    magics = (magic for magic in _FORMATS if len(magic) > 2)
    if any(magic.startswith(data) for magic in magics):
        return damaged(f"{len(data)} bytes")
    # U+FFFD is what a program put that took bytes for text; another line end, what FTP did.
    if data.startswith((b"\xef\xbf\xbd", b"\x89PNG")):
        return damaged("it was taken for text on its way")
    if _BASE64.match(head):
        return RefusedError(f"text of base64, not a {_READ}", "decode it")
    if _TEXT.fullmatch(head):
        return RefusedError(f"text, not a {_READ}", _FETCH)
    return RefusedError(f"not a {_READ}", "convert it")


def _picture_behind(data: bytes) -> tuple[Format, int] | None:
    """The format of a picture that begins a little later than its file, and at which byte."""
    found = _INSIDE.search(data, 0, _SEARCHED_BYTES)
    blanks = len(data[:_SEARCHED_BYTES]) - len(data[:_SEARCHED_BYTES].lstrip(_BLANK))
    for place in (blanks, *([found.start()] if found else [])):
        for magic, kind in _FORMATS.items():
            if place and len(magic) > 2 and data.startswith(magic, place):
                return kind, place
    return None
