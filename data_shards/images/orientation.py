"""How a picture lies, by EXIF's eight numbers, in the metadata of any format.

A format's own tag counts first, then EXIF, then XMP: the first that says one of the eight.
"""

from __future__ import annotations

import codecs
import re
import warnings
import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

from PIL import Image

from data_shards.images.refusals import UNDECODABLE

UPRIGHT = 1
_NUMBER = re.compile(r"\s*0*([1-8])\s*")
_UNREADABLE = "metadata that cannot be read"
_TAG = 0x0112
_EXIF_MARK = b"Exif\0\0"
_XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
_TIFF_NAMES = "http://ns.adobe.com/tiff/1.0/"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
# As ImageMagick and others keep blocks of other formats in a PNG: length and hexadecimal digits.
_RAW_PROFILE = re.compile(rb"Raw profile type (exif|xmp|app1)", re.IGNORECASE)
_HEX_BLOCK = re.compile(rb"\s*\w+\s+(\d+)\s([0-9A-Fa-f\s]*)\Z")
_LONGEST_TEXT = 1 << 24


@dataclass(slots=True)
class Metadata:
    """Blocks that may say how a picture lies, in the order in which they are asked.

    `own` are the values of a format's own tag. `unreadable`: a block is there of which nothing can
    be read.
    """

    own: list[str] = field(default_factory=list)
    exif: list[bytes] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    unreadable: bool = False

    def add_exif(self, block: bytes) -> None:
        """What TIFF's header begins, with EXIF's mark or without."""
        self.exif.append(block.removeprefix(_EXIF_MARK))

    def add_block(self, block: bytes) -> None:
        """What an APP1 segment of a JPEG holds: EXIF or XMP by its mark, or neither."""
        if block.startswith(_XMP_MARK):
            self.xmp.append(block.removeprefix(_XMP_MARK))
        elif block.startswith(_EXIF_MARK):
            self.add_exif(block)

    def add_png_text(self, name: bytes, payload: bytes) -> None:
        """A chunk tEXt, zTXt or iTXt of a PNG; others than metadata are passed over."""
        keyword, _, rest = payload.partition(b"\0")
        raw = _RAW_PROFILE.fullmatch(keyword)
        if not raw and keyword != _XMP_KEYWORD:
            return
        try:
            text = _text_of(name, rest)
            if raw is None:
                self.xmp.append(text)
            elif raw[1].lower() == b"exif":
                self.add_exif(_unhexed(text))
            elif raw[1].lower() == b"xmp":
                self.xmp.append(_unhexed(text).removeprefix(_XMP_MARK))
            else:
                self.add_block(_unhexed(text))
        except (ValueError, zlib.error):
            self.unreadable = True


def orientation_in(metadata: Metadata) -> tuple[int, str]:
    """The number, from 1 to 8, and what is wrong where none of them is said; then it is 1."""
    wrong = _UNREADABLE if metadata.unreadable else ""
    said = list(metadata.own)
    for read, blocks in ((_said_in_exif, metadata.exif), (_said_in_xmp, metadata.xmp)):
        for block in blocks:
            try:
                said += read(block)
            except (*UNDECODABLE, Warning, expat.ExpatError):
                wrong = _UNREADABLE
    for each in said:
        if number := _NUMBER.fullmatch(each):
            return int(number[1]), ""
        wrong = f"orientation {' '.join(each.split()):.20}"
    return UPRIGHT, wrong


def _said_in_exif(block: bytes) -> list[str]:
    with warnings.catch_warnings():
        # Pillow forgives metadata that are damaged, or warns of them.
        warnings.simplefilter("error")
        exif = Image.Exif()
        exif.load(_EXIF_MARK + block)
        value = exif.get(_TAG)
    return [] if value is None else [str(value)]


def _said_in_xmp(packet: bytes) -> list[str]:
    """tiff:Orientation as an attribute or an element, whatever its prefix and quotes."""
    found: list[str] = []
    prefixes = {"tiff": _TIFF_NAMES}
    inside = False

    def is_orientation(name: str) -> bool:
        prefix, _, local = name.rpartition(":")
        return local == "Orientation" and prefixes.get(prefix) == _TIFF_NAMES

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal inside
        for each, value in attributes.items():
            if each == "xmlns" or each.startswith("xmlns:"):
                prefixes[each.partition(":")[2]] = value
        found.extend(value for each, value in attributes.items() if is_orientation(each))
        if is_orientation(name):
            inside = True
            found.append("")

    def end(name: str) -> None:
        nonlocal inside
        inside = inside and not is_orientation(name)

    def text(data: str) -> None:
        if inside:
            found[-1] += data

    def refuse(*_: object) -> None:
        raise ValueError("a document type, which no XMP packet has")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    is_wide = packet.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    parser.Parse(packet if is_wide else packet.strip(b"\0 \t\r\n"), True)
    return found


def _text_of(name: bytes, rest: bytes) -> bytes:
    """What follows a keyword and its zero. Raises ValueError or zlib.error."""
    if name == b"tEXt":
        return rest
    is_packed = name == b"zTXt" or rest[:1] == b"\1"
    # Of an iTXt: whether it is packed, how, its language and the keyword in that.
    content = rest[1:] if name == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    if not is_packed:
        return content
    stream = zlib.decompressobj()
    text = stream.decompress(content, _LONGEST_TEXT)
    if not stream.eof:
        raise ValueError("a text that is cut or too long")
    return text


def _unhexed(text: bytes) -> bytes:
    block = _HEX_BLOCK.fullmatch(text)
    if block is None:
        raise ValueError("no block in hexadecimal digits")
    payload = bytes.fromhex(block[2].decode())
    if len(payload) != int(block[1]):
        raise ValueError("a block of another length")
    return payload
