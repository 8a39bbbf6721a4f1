"""JPEG files: whole or refused. A decoder draws plain grey, and says nothing, where data end."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

from PIL import Image, ImageChops

from data_shards.images.first_bytes import refuse_picture_behind
from data_shards.images.layout import Layout, Size
from data_shards.images.orientation import Metadata
from data_shards.images.refusals import damaged, not_read
from data_shards.images.samples import SampleMeaning

_READ = {0xC0, 0xC1, 0xC2}
_NOT_READ = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic coding"),
    0xF7: "JPEG-LS",
}
_END, _SCAN, _INTERVAL, _APP1, _APP2, _APP14 = 0xD9, 0xDA, 0xDD, 0xE1, 0xE2, 0xEE
# Bare markers: TEM, RST0 to RST7, another SOI.
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
# What ends a scan: 0xFF not followed by a stuffed zero, a restart's number or a filling 0xFF.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
# Grey of blocks that no data reached, in whatever colours; and what a cut scan would read on.
_UNREACHED = range(126, 130)
_HOLE = bytes(512)
_PROBE = bytes((37 * number + 11) % 255 for number in range(64))


@dataclass(slots=True)
class _Scans:
    """What the markers of a JPEG say. `missing` are the bits of each coefficient still to come."""

    size: Size = (0, 0)
    count: int = 0
    start: int = 0
    end: int = 0
    lists_pictures: bool = False
    is_adobes: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    missing: dict[int, list[int]] = field(default_factory=dict)
    # Of interleaved blocks how many there are, and how many between two restarts (0: none).
    units: int = 0
    interval: int = 0


def jpeg_layout(data: bytes) -> Layout:
    """What the JPEG `data` holds.

    Raises RefusedError for one that ends early, also behind an end marker that was put there later,
    for lost scans and restart intervals, and for layouts that are not read.
    """
    scans = _scans(data)
    always = scans.count > 1 or len(scans.missing) > 3

    def check(decoded: Image.Image) -> None:
        corner = decoded.getpixel((decoded.width - 1, decoded.height - 1))
        values = corner if isinstance(corner, tuple) else (corner,)
        if always or all(value in _UNREACHED for value in values):
            _refuse_cut(data, scans.end)
        elif data.find(_HOLE, scans.start, scans.end) >= 0:
            _refuse_hole(data, scans.end)

    return Layout(scans.size, SampleMeaning(8), data, check, scans.metadata)


def refuse_cut_jpeg(data: bytes) -> None:
    """Raise RefusedError for a JPEG of which a part is missing."""
    _refuse_cut(data, _scans(data).end)


def _refuse_cut(data: bytes, end: int) -> None:
    """The decisive test: bytes before the end marker change a picture that lacks some, no other."""
    if _differ(data, data[:end] + _PROBE + data[end:]):
        raise damaged("its data end before the picture does")


def _refuse_hole(data: bytes, end: int) -> None:
    """A run of zeros is a hole where the picture is complete before its data are.

    In a plain picture it is not: without the last bytes its last blocks turn grey.
    """
    if not _differ(data, data[: end - len(_PROBE)] + data[end:]):
        raise damaged("a hole in its data")


def _differ(one: bytes, other: bytes) -> bool:
    with (
        Image.open(io.BytesIO(one), formats=("JPEG",)) as first,
        Image.open(io.BytesIO(other), formats=("JPEG",)) as second,
    ):
        difference = ImageChops.difference(first.convert("RGB"), second.convert("RGB"))
    return difference.getbbox() is not None


def _scans(data: bytes) -> _Scans:
    found, place, progressive, scan, units = _Scans(), 2, False, 0, 0
    while (marker := _MARKER.search(data, place)) is not None:
        kind, place = data[marker.end() - 1], marker.end()
        if kind in _WITHOUT_LENGTH:
            continue
        if scan and found.interval:
            _refuse_lost_intervals(data[scan : marker.start()], units, found.interval)
        scan = 0
        if kind == _END:
            found.end = marker.start()
            break
        segment = data[place + 2 : place + int.from_bytes(data[place : place + 2], "big")]
        place += 2 + len(segment)
        if kind in _NOT_READ:
            raise not_read("JPEG", _NOT_READ[kind])
        if kind in _READ:
            progressive = kind == 0xC2
            _read_frame(segment, found)
        elif kind == _SCAN:
            found.count += 1
            _read_scan(segment, found, progressive=progressive)
            scan = found.start = place
            # A scan of one component of several has blocks of its own.
            units = found.units if segment[0] == len(found.missing) else 0
        elif kind == _APP1:
            found.metadata.add_block(segment)
        elif kind == _APP2 and segment.startswith(b"MPF\0"):
            found.lists_pictures = True
        elif kind == _APP14 and segment.startswith(b"Adobe"):
            found.is_adobes = True
        elif kind == _INTERVAL:
            found.interval = int.from_bytes(segment[:2], "big")
    if not found.lists_pictures:
        refuse_picture_behind(data, found.end + 2)
    if len(found.missing) == 4 and not found.is_adobes:
        raise not_read("JPEG", "four channels, and it does not say whether 0 is ink or none")
    if not (found.end and found.count):
        raise damaged("no end marker" if found.count else "no scan")
    if any(bits for component in found.missing.values() for bits in component):
        raise damaged("scans are missing")
    return found


def _read_frame(segment: bytes, found: _Scans) -> None:
    if len(segment) < 6 or len(segment) < 6 + 3 * segment[5]:
        raise damaged("a header that makes no sense")
    if segment[0] != 8:
        raise not_read("JPEG", f"samples of {segment[0]} bits")
    found.size = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big")
    if not all(found.size):
        raise not_read("JPEG", "its height or width stands elsewhere")
    factors = [(each >> 4, each & 15) for each in segment[7 : 6 + 3 * segment[5] : 3]]
    across, down = (max(each, default=0) for each in zip(*factors, strict=True))
    if not (across and down):
        raise damaged("a header that makes no sense")
    if segment[5] == 1:
        across = down = 1
    width, height = found.size
    found.units = -(-width // (8 * across)) * -(-height // (8 * down))
    found.missing = {segment[6 + 3 * number]: [8] * 64 for number in range(segment[5])}


def _read_scan(segment: bytes, found: _Scans, *, progressive: bool) -> None:
    components = segment[1 : 1 + 2 * segment[0] : 2] if segment else b""
    if not components or len(segment) < 4 + 2 * len(components):
        raise damaged("a header that makes no sense")
    first, last, bits = segment[-3], segment[-2], segment[-1] & 15
    for component in components:
        for coefficient in range(first, last + 1) if progressive else range(64):
            if component in found.missing and coefficient < 64:
                found.missing[component][coefficient] = bits if progressive else 0


def _refuse_lost_intervals(scan: bytes, units: int, interval: int) -> None:
    """By the restarts' numbers, and their count where the scan's `units` are known (else 0)."""
    numbers = [each[1] - 0xD0 for each in _RESTART.findall(scan)]
    wanted = -(-units // interval) - 1 if units else len(numbers)
    if len(numbers) != wanted or any(
        number != position % 8 for position, number in enumerate(numbers)
    ):
        raise damaged("intervals of a scan are missing")
